"""REINFORCE on a pole that must be balanced."""

import torch
import torch.nn as nn
import torch.nn.functional as F
import torch.optim as optim
from torch.distributions import Categorical

torch.manual_seed(543)


class Pole:
    """An environment: the angle grows by itself, and each action pushes it."""

    def reset(self):
        self.state = torch.tensor([0.05, 0.0])
        return self.state

    def step(self, action):
        angle, speed = self.state.tolist()
        speed += 0.05 * angle + (0.02 if action else -0.02)
        self.state = torch.tensor([angle + speed, speed])
        return self.state, 1.0, abs(angle + speed) > 0.5


class Policy(nn.Module):
    def __init__(self):
        super().__init__()
        self.affine1 = nn.Linear(2, 16)
        self.dropout = nn.Dropout(p=0.1)
        self.affine2 = nn.Linear(16, 2)
        self.saved_log_probs, self.rewards = [], []

    def forward(self, x):
        return F.softmax(self.affine2(F.relu(self.dropout(self.affine1(x)))), dim=1)


policy, env = Policy(), Pole()
optimizer = optim.Adam(policy.parameters(), lr=1e-2)


def select_action(state):
    m = Categorical(policy(state.unsqueeze(0)))
    action = m.sample()
    policy.saved_log_probs.append(m.log_prob(action))
    return action.item()


def finish_episode():
    R, policy_loss, returns = 0, [], []
    for r in policy.rewards[::-1]:
        R = r + 0.99 * R
        returns.insert(0, R)
    returns = torch.tensor(returns)
    returns = (returns - returns.mean()) / (returns.std() + 1e-6)
    for log_prob, R in zip(policy.saved_log_probs, returns):
        policy_loss.append(-log_prob * R)
    optimizer.zero_grad()
    policy_loss = torch.cat(policy_loss).sum()
    policy_loss.backward()
    optimizer.step()
    del policy.rewards[:], policy.saved_log_probs[:]
    return policy_loss.item()


for i_episode in range(5):
    state, ep_reward = env.reset(), 0
    for t in range(1, 40):
        state, reward, done = env.step(select_action(state))
        policy.rewards.append(reward)
        ep_reward += reward
        if done:
            break
    print(f"Episode {i_episode}\treward {ep_reward:.2f}\tloss {finish_episode():.6f}")
