"""Facts about the program of a watch, read on the host at a step; the input of contracts."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramFacts:
    """Facts about parameters, gradients and modes at one step, before the optimizer changes weights.

    Names are those of parameters. A step is *checked* unless a closure computes its gradients.

    Args:
        checked: Number of checked steps of the watch so far, this one included.
        complete: Whether facts about parameters were collected: those from ``held`` to ``only_normalization``, and ``half``.
        held: Number of parameters of the optimizer that require a gradient and belong to the model.
        unheld: Trainable parameters with a gradient that no watched optimizer holds, and that nothing has changed since an
            earlier step.
        replaced: Those of them that have the shape of a parameter that the optimizer holds, that is not the model's, and that
            never had a gradient.
        ungraded: Parameters of the optimizer that require a gradient and had none in any checked step, each with the number
            of these steps.
        alternatives: Those of them with a sibling in a list or dictionary of modules that had one, such as another expert.
        only_normalization: Whether all trainable parameters of the model belong to normalisation layers, and others are
            frozen.
        kept: Consecutive steps before which the gradients of the previous step had been kept. Counted with the version of a
            gradient, which distinguishes adding, clearing in place and replacing.
        evaluating: Consecutive steps with the model in evaluation mode.
        trained: Whether the model was in training mode at an earlier step.
        modal: Modules that evaluation mode changes (dropout, batch normalisation), all of which are in it; at most 20.
        half: Whether gradients are float16.
        matrices: Names that the bits of the signals ``constant`` and ``zero`` stand for.
        sizes: Number of elements of the captured outputs along the batch and the classes; 0 without captured outputs.
        forwards: Number of forward passes since the watch began; None if no hook counts them.
    """

    checked: int = 0
    complete: bool = True
    held: int = 0
    unheld: tuple[str, ...] = ()
    replaced: tuple[str, ...] = ()
    ungraded: tuple[tuple[str, int], ...] = ()
    alternatives: tuple[str, ...] = ()
    only_normalization: bool = False
    kept: int = 0
    evaluating: int = 0
    trained: bool = False
    modal: tuple[str, ...] = ()
    half: bool = False
    matrices: tuple[str, ...] = ()
    sizes: tuple[int, int] = (0, 0)
    forwards: int | None = None


@dataclass(frozen=True, slots=True)
class ForwardModes:
    """Forward passes without gradients between the last step and a validation.

    Args:
        training: Number of passes in training mode.
        evaluation: Number of passes in evaluation mode.
        modal: Modules that the mode changes; at most 20.
    """

    training: int
    evaluation: int
    modal: tuple[str, ...] = ()
