"""Several optimizers in one environment, coming and going."""

import nissa
from nissa import MemoryBackend
from nissa.hub.measurements import StepMeasured
from tests.toys import Toy


def _steps(memory: MemoryBackend) -> list[int]:
    return [each.step for each in memory.measurements if isinstance(each, StepMeasured) and each.primary]


def test_when_the_first_optimizer_leaves_the_next_one_counts_the_steps(toy: Toy, another_toy: Toy) -> None:
    memory = MemoryBackend()
    with nissa.start("minimal", backends=[memory], console__enabled=False) as run:
        first = run.watch(toy.model, toy.optimizer, name="a")
        run.watch(another_toy.model, another_toy.optimizer, name="b")
        for _ in range(2):
            toy.step(run)
            another_toy.step(run)
        first.close()
        another_toy.step(run)
        run.watch(toy.model, toy.optimizer, name="a")
        toy.step(run)
        another_toy.step(run)
        run.flush()
        assert _steps(memory) == [0, 1, 2, 3]


def test_what_was_wrong_with_a_model_is_forgotten_with_it(toy: Toy) -> None:
    with nissa.start("diagnostic", console__enabled=False) as run:
        watch = run.watch(toy.model, toy.optimizer)
        weight = next(toy.model.parameters())
        weight.grad = weight.detach() * float("nan")
        toy.optimizer.step()
        run.flush()
        assert "nonfinite_gradients" in run.validate(loss=1.0).red_flags
        watch.close()
        assert run.validate(loss=1.0).gradient_health is None
