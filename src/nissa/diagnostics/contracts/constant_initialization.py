"""Weight matrices that begin as constants, so that all units of a layer stay equal.

Zeros are common where a branch shall begin without an effect (LoRA, residual branches, a last layer), so that they count only if
all matrices of the model are constant. Other constants count unless they are those of the last layer.
"""

from nissa.diagnostics.contracts.contract import Observation, ProgramContract, some
from nissa.diagnostics.finding import Certainty
from nissa.diagnostics.rule import FINE, Judgement, Symptom
from nissa.events import Severity


class ConstantInitialization(ProgramContract):
    """Before the first step, all weight matrices are constant, or one in front of others is constant and not zero."""

    name = "constant_initialization"
    severity = Severity.ERROR
    advice = (
        "Initialise weights at random, for example with torch.nn.init.kaiming_uniform_(); constants are for biases."
    )
    complete = True
    observations = 1
    source = "DeepFD benchmark, label `init`; Glorot and Bengio (2010), on the need to break symmetry"
    twin = "LoRA, residual branches and last layers that begin at zero, linear models, scales and biases"
    explains = frozenset(
        {
            "learning_rate_too_low",
            "sustained_plateau",
            "dead_units",
            "vanishing_gradients",
            "stalled_layer",
            "poor_gradient_health",
        }
    )

    def judge(self, seen: Observation) -> Judgement:
        """Judge the first step."""
        names, bits = seen.facts.matrices, seen.signals.get("constant")
        if len(names) < 2 or bits is None:  # noqa: PLR2004 - units of a single layer differ by their targets
            return None
        constant = _named(names, bits)
        nonzero = [name for name in constant if name not in _named(names, seen.signals.get("zero", 0.0))]
        broken = constant if len(constant) == len(names) else [name for name in nonzero if name != names[-1]]
        if not broken:
            return FINE
        return Symptom(
            seen=f"Weights of {some(broken, 'layer')} begin as constants, so that their units stay equal",
            certainty=Certainty.CERTAIN if len(constant) == len(names) else Certainty.LIKELY,
            layers=tuple(broken),
            value=len(broken),
        )


def _named(names: tuple[str, ...], bits: float) -> list[str]:
    return [name for place, name in enumerate(names) if int(bits) >> place & 1]
