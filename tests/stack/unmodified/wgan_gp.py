"""A Wasserstein GAN with gradient penalty: several steps of the critic for each of the generator."""

import torch
import torch.nn as nn

torch.manual_seed(0)
latent_dim, n_critic, lambda_gp, batch_size = 8, 3, 10, 16


class Generator(nn.Module):
    def __init__(self):
        super().__init__()
        self.model = nn.Sequential(nn.Linear(latent_dim, 16), nn.LeakyReLU(0.2), nn.Linear(16, 2))

    def forward(self, z):
        return self.model(z)


class Critic(nn.Module):
    def __init__(self):
        super().__init__()
        self.model = nn.Sequential(nn.Linear(2, 16), nn.LeakyReLU(0.2), nn.Linear(16, 1))

    def forward(self, img):
        return self.model(img)


def compute_gradient_penalty(D, real_samples, fake_samples):
    alpha = torch.rand(real_samples.size(0), 1)
    interpolates = (alpha * real_samples + (1 - alpha) * fake_samples).requires_grad_(True)
    d_interpolates = D(interpolates)
    gradients = torch.autograd.grad(
        outputs=d_interpolates,
        inputs=interpolates,
        grad_outputs=torch.ones_like(d_interpolates),
        create_graph=True,
        retain_graph=True,
    )[0]
    return ((gradients.norm(2, dim=1) - 1) ** 2).mean()


generator, critic = Generator(), Critic()
optimizer_G = torch.optim.Adam(generator.parameters(), lr=1e-3, betas=(0.5, 0.9))
optimizer_D = torch.optim.Adam(critic.parameters(), lr=1e-3, betas=(0.5, 0.9))
for i in range(9):
    real_imgs = torch.randn(batch_size, 2) + 1
    optimizer_D.zero_grad()
    fake_imgs = generator(torch.randn(batch_size, latent_dim))
    gradient_penalty = compute_gradient_penalty(critic, real_imgs, fake_imgs.detach())
    d_loss = -torch.mean(critic(real_imgs)) + torch.mean(critic(fake_imgs.detach())) + lambda_gp * gradient_penalty
    d_loss.backward()
    optimizer_D.step()
    print(f"[Batch {i}] lossD {d_loss.item():.6f}")
    if i % n_critic == 0:
        optimizer_G.zero_grad()
        g_loss = -torch.mean(critic(generator(torch.randn(batch_size, latent_dim))))
        g_loss.backward()
        optimizer_G.step()
        print(f"[Batch {i}] lossG {g_loss.item():.6f}")
