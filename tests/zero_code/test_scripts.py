"""Scripts that do not mention Nissa: what they compute themselves is what was exported."""

import json
import textwrap
from pathlib import Path
from typing import Any

import pytest

from tests.support import finish, only_run, points, records, script, spans

OBSERVED = "from nissa.integrations.zero_code import instrument; instrument()\n"
"""First line of a script as if ``nissa run`` had started it, in a process that has imported torch."""

PROBLEM = """
import json, sys, torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
torch.manual_seed(0)
x = torch.randn(22, 3); y = x.sum(1, keepdim=True).sin()
data = TensorDataset(x, y)
def net(): return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
losses = []
"""
EVERY_STEP = {"NISSA_PROFILE": "diagnostic", "NISSA_OVERHEAD_BUDGET": "1.0"}


def train(folder: Path, body: str, status: int = 0, **environ: str) -> tuple[Path, list[Any], str]:
    """Run a script, and return the folder of its run, what it printed in JSON on its last line, and its output."""
    text = OBSERVED + PROBLEM + textwrap.dedent(body)
    done, out, err = finish(script(text, folder=folder, environ={**EVERY_STEP, **environ}))
    assert done == status, err
    assert not [line for line in out.splitlines() if "nissa" in line or " · " in line], "the output is the script's own"
    found = [json.loads(line) for line in out.splitlines() if line.startswith("[")]
    return only_run(folder), found[-1] if found else [], out + err


def values(run: Path, metric: str, **attributes: str) -> list[float]:
    """Return the values of a metric in the order of their time."""
    found = [point for point in points(run, metric) if attributes.items() <= point.attributes.items()]
    return [point.value for point in sorted(found, key=lambda point: point.time)]


def losses(run: Path) -> list[float]:
    return [
        point.value
        for point in sorted(points(run, "nissa.loss"), key=lambda point: point.time)
        if point.attributes["nissa.phase"] == "train"
    ]


def epochs(run: Path) -> list[int]:
    return [span.attributes["nissa.epoch"] for span in spans(run) if span.name == "epoch"]


def test_a_classifier_with_epochs_and_evaluations(tmp_path: Path) -> None:
    run, expected, out = train(
        tmp_path,
        """
        model = net(); optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        training, test = DataLoader(data, batch_size=8), DataLoader(data, batch_size=8)
        next(iter(training))  # a look at the data is no epoch
        norms = []
        for epoch in range(2):
            model.train()
            for a, b in training:
                optimizer.zero_grad()
                loss = nn.functional.mse_loss(model(a), b)
                loss.backward()
                losses.append(loss.item())
                norms.append(model[0].weight.grad.norm().item())
                optimizer.step()
            model.eval()
            with torch.no_grad():
                for a, b in test:
                    model(a)
        print(json.dumps([losses, norms]))
        """,
    )
    assert losses(run) == pytest.approx(expected[0])
    assert values(run, "nissa.gradient.norm", **{"nissa.parameter.name": "0.weight"}) == pytest.approx(expected[1])
    assert epochs(run) == [0, 1]
    assert values(run, "nissa.items", **{"nissa.item.kind": "samples"})[-1] == 2 * 22
    phases = {point.attributes["nissa.step.phase"] for point in points(run, "nissa.step.phase.duration")}
    assert phases == {"data", "forward", "backward", "optimizer"}
    of_epochs = {span.span_id for span in spans(run) if span.name == "epoch"}
    validations = [span for span in spans(run) if span.name == "validation"]
    assert len(validations) == 2
    assert {span.parent_id for span in validations} == of_epochs
    assert "not observed: validation loss and accuracy (run.validate(loss=..., accuracy=...))" in out


def test_a_pass_in_evaluation_mode_is_an_evaluation_even_with_gradients(tmp_path: Path) -> None:
    run, _, out = train(
        tmp_path,
        """
        model = net(); optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        training, test = DataLoader(data, batch_size=8), DataLoader(data, batch_size=8)
        for epoch in range(2):
            model.train()
            for a, b in training:
                optimizer.zero_grad(); nn.functional.mse_loss(model(a), b).backward(); optimizer.step()
            model.eval()
            for a, b in test: model(a)
        """,
    )
    assert epochs(run) == [0, 1]
    assert len([span for span in spans(run) if span.name == "validation"]) == 2
    assert "the time of forward" not in out


def test_a_network_that_is_trained_in_evaluation_mode_has_epochs_and_no_evaluations(tmp_path: Path) -> None:
    run, _, _ = train(
        tmp_path,
        """
        model = net().eval(); optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        training = DataLoader(data, batch_size=8)
        for epoch in range(3):
            for a, b in training:
                optimizer.zero_grad(); nn.functional.mse_loss(model(a), b).backward(); optimizer.step()
        """,
    )
    assert epochs(run) == [0, 1, 2]
    assert not [span for span in spans(run) if span.name == "validation"]


def test_passes_that_cannot_be_seen_are_listed(tmp_path: Path) -> None:
    run, _, out = train(
        tmp_path,
        """
        weight = nn.Parameter(torch.ones(3, 1)); optimizer = torch.optim.SGD([weight], lr=0.1)
        for _ in range(3):
            optimizer.zero_grad(); nn.functional.mse_loss(x @ weight, y).backward(); optimizer.step()
        """,
    )
    phases = {point.attributes["nissa.step.phase"] for point in points(run, "nissa.step.phase.duration")}
    assert phases == {"optimizer"}
    assert "the time of forward and backward (run.watch(the module that the loop calls, optimizer))" in out


def test_a_warning_of_torch_before_the_first_step_is_an_event(tmp_path: Path) -> None:
    run, _, out = train(
        tmp_path,
        """
        model = net(); optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
        for a, b in DataLoader(data, batch_size=8):
            optimizer.zero_grad(); nn.functional.mse_loss(model(a), b).backward()
            scheduler.step(); optimizer.step()  # the wrong order, of which torch warns
        """,
    )
    warned = [each for each in records(run) if each.get("eventName") == "nissa.event.torch_warning"]
    assert ["`lr_scheduler.step()` before `optimizer.step()`" in each["body"]["stringValue"] for each in warned] == [
        True
    ]
    assert out.count("UserWarning") == 1


def test_an_opentelemetry_setup_of_the_script_takes_precedence(tmp_path: Path) -> None:
    text = (
        OBSERVED
        + PROBLEM
        + textwrap.dedent("""
        from opentelemetry import metrics, trace
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import InMemoryMetricReader
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
        exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
        trace.set_tracer_provider(TracerProvider()); metrics.set_meter_provider(MeterProvider([reader]))
        trace.get_tracer_provider().add_span_processor(SimpleSpanProcessor(exporter))
        model = net(); optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for epoch in range(2):
            for a, b in DataLoader(data, batch_size=8):
                optimizer.zero_grad(); nn.functional.mse_loss(model(a), b).backward(); optimizer.step()
        import nissa
        assert nissa.current_run().flush(30)
        found = [each.name for resource in reader.get_metrics_data().resource_metrics
                 for scope in resource.scope_metrics for each in scope.metrics]
        print(json.dumps([[each.name for each in exporter.get_finished_spans()], found]))
        """)
    )
    status, out, err = finish(script(text, folder=tmp_path, environ=EVERY_STEP, bare=True))
    assert status == 0, err
    names, metrics = json.loads([line for line in out.splitlines() if line.startswith("[")][-1])
    assert "epoch" in names
    assert {"nissa.loss", "nissa.gradient.norm"} <= set(metrics)
    assert not list(tmp_path.glob("nissa-runs/*"))


def test_a_language_model_with_accumulation_and_a_scaler_and_no_epochs(tmp_path: Path) -> None:
    run, expected, out = train(
        tmp_path,
        """
        model = net(); optimizer = torch.optim.AdamW(model.parameters())
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
        for step in range(3):
            both = []
            for micro in range(2):
                loss = nn.functional.mse_loss(model(x[micro::2]), y[micro::2]) / 2
                both.append(loss.item())
                scaler.scale(loss).backward()
            losses.append(sum(both))
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            scaler.step(optimizer); scaler.update(); optimizer.zero_grad()
        print(json.dumps(losses))
        """,
    )
    assert len(values(run, "nissa.step")) == 3
    assert losses(run) == []
    assert values(run, "nissa.backward.value") == pytest.approx(expected)
    assert epochs(run) == []
    assert "the scale of the training loss (run.log_loss(loss, scale=...))" in out
    assert "epochs (with run.epoch(number):)" in out


def test_the_factor_of_a_scaler_is_removed_and_its_skipped_steps_are_counted(tmp_path: Path) -> None:
    run, expected, _ = train(
        tmp_path,
        """
        model = net(); optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
        for step in range(4):
            optimizer.zero_grad()
            loss = nn.functional.mse_loss(model(x), y)
            scaler.scale(loss).backward()
            if step == 2: model[0].weight.grad.fill_(torch.inf)
            else: losses.append(loss.item())
            scaler.step(optimizer); scaler.update()
        print(json.dumps(losses))
        """,
    )
    assert losses(run) == pytest.approx(expected)
    assert values(run, "nissa.step.skipped")[-1] == 1


@pytest.mark.parametrize("last", ["loss / 4", "loss * 0.25"])
def test_a_value_that_was_divided_or_multiplied_is_no_loss(tmp_path: Path, last: str) -> None:
    run, expected, _ = train(
        tmp_path,
        f"""
        model = net(); optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for step in range(2):
            optimizer.zero_grad()
            loss = nn.functional.mse_loss(model(x), y)
            loss = {last}
            loss.backward(); optimizer.step(); losses.append(loss.item())
        print(json.dumps(losses))
        """,
    )
    assert losses(run) == []
    assert values(run, "nissa.backward.value") == pytest.approx(expected)
    assert len(values(run, "nissa.step")) == 2


def test_a_gan_has_two_models_and_the_loss_of_the_generator(tmp_path: Path) -> None:
    run, expected, _ = train(
        tmp_path,
        """
        class Generator(nn.Sequential): pass
        class Discriminator(nn.Sequential): pass
        g = Generator(nn.Linear(3, 3)); d = Discriminator(nn.Linear(3, 1))
        og, od = torch.optim.Adam(g.parameters()), torch.optim.Adam(d.parameters())
        bce = nn.BCEWithLogitsLoss()
        for a, _ in DataLoader(data, batch_size=8):
            one, zero = torch.ones(len(a), 1), torch.zeros(len(a), 1)
            od.zero_grad()
            real, fake = bce(d(a), one), bce(d(g(a).detach()), zero)
            real.backward(); fake.backward(); od.step()
            og.zero_grad()
            loss = bce(d(g(a)), one); loss.backward(); og.step()
            losses.append([loss.item(), real.item() + fake.item()])
        print(json.dumps(losses))
        """,
    )
    of_generator, of_discriminator = zip(*expected, strict=True)
    assert values(run, "nissa.loss", **{"nissa.model.name": "Generator"}) == pytest.approx(of_generator)
    found = values(run, "nissa.backward.value", **{"nissa.model.name": "Discriminator"})
    assert found == pytest.approx(of_discriminator)
    assert values(run, "nissa.loss", **{"nissa.model.name": "Discriminator"}) == []
    models = {point.attributes["nissa.model.name"] for point in points(run, "nissa.gradient.norm")}
    assert models == {"Generator", "Discriminator"}


def test_actor_and_critic_of_one_optimizer_keep_their_names(tmp_path: Path) -> None:
    run, expected, _ = train(
        tmp_path,
        """
        class Actor(nn.Sequential): pass
        class Critic(nn.Sequential): pass
        actor, critic, log_std = Actor(nn.Linear(3, 1)), Critic(nn.Linear(3, 1)), nn.Parameter(torch.zeros(1))
        optimizer = torch.optim.Adam([*actor.parameters(), *critic.parameters(), log_std])
        for step in range(2):
            optimizer.zero_grad()
            loss = (actor(x) - y).square().mean() + critic(x).mean() + log_std.exp().mean()
            loss.backward(); optimizer.step(); losses.append(loss.item())
        print(json.dumps(losses))
        """,
    )
    assert losses(run) == pytest.approx(expected)
    names = {point.attributes["nissa.parameter.name"] for point in points(run, "nissa.gradient.norm")}
    assert names == {"Actor.0.weight", "Actor.0.bias", "Critic.0.weight", "Critic.0.bias", "parameter"}


def test_an_optimizer_with_a_closure_has_the_loss_of_its_starting_point(tmp_path: Path) -> None:
    run, expected, _ = train(
        tmp_path,
        """
        model = net(); optimizer = torch.optim.LBFGS(model.parameters(), max_iter=3)
        for step in range(3):
            first = []
            def closure():
                optimizer.zero_grad()
                loss = nn.functional.mse_loss(model(x), y); loss.backward()
                first.append(loss.item())
                return loss
            optimizer.step(closure); losses.append(first[0])
        print(json.dumps(losses))
        """,
    )
    assert losses(run) == pytest.approx(expected)


def test_a_gradient_penalty_is_no_loss(tmp_path: Path) -> None:
    run, expected, _ = train(
        tmp_path,
        """
        model = net(); optimizer = torch.optim.Adam(model.parameters())
        for step in range(2):
            optimizer.zero_grad()
            z = x.clone().requires_grad_()
            penalty = torch.autograd.grad(model(z).sum(), z, create_graph=True)[0].norm(dim=1).sub(1).square().mean()
            loss = model(x).mean() - model(-x).mean() + 10 * penalty
            loss.backward(); optimizer.step(); losses.append(loss.item())
        print(json.dumps(losses))
        """,
    )
    assert losses(run) == pytest.approx(expected)


def test_a_loop_that_rebuilds_its_loader_and_one_that_reads_two_at_once(tmp_path: Path) -> None:
    run, _, _ = train(
        tmp_path,
        """
        model = net(); optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        def step(a, b):
            optimizer.zero_grad(); nn.functional.mse_loss(model(a), b).backward(); optimizer.step()
        for epoch in range(2):
            for a, b in DataLoader(data, batch_size=8): step(a, b)
        for pair in zip(DataLoader(data, batch_size=8), DataLoader(data, batch_size=8)):
            for a, b in pair: step(a, b)
        """,
    )
    assert epochs(run) == [0, 1, 2]
    assert len(values(run, "nissa.step")) == 12


def test_an_exception_ends_the_run_with_its_name(tmp_path: Path) -> None:
    run, _, out = train(
        tmp_path,
        """
        model = net(); optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for a, b in DataLoader(data, batch_size=8):
            loss = nn.functional.mse_loss(model(a), b); loss.backward(); optimizer.step()
            raise ZeroDivisionError("of the script")
        """,
        status=1,
    )
    assert "ZeroDivisionError: of the script" in out
    (epoch,) = [span for span in spans(run) if span.name == "epoch"]
    assert epoch.error


def test_a_child_that_trains_after_a_fork_is_a_run_of_its_own(tmp_path: Path) -> None:
    text = (
        OBSERVED
        + PROBLEM
        + textwrap.dedent("""
        import os
        def train(steps):
            model = net(); optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            for _ in range(steps):
                optimizer.zero_grad(); nn.functional.mse_loss(model(x), y).backward(); optimizer.step()
        train(2)
        child = os.fork()
        train(3 if child == 0 else 1)
        if child: os.waitpid(child, 0)
        """)
    )
    status, _, err = finish(script(text, folder=tmp_path, environ=EVERY_STEP))
    assert status == 0, err
    steps = sorted(len(values(run, "nissa.step")) for run in (tmp_path / "nissa-runs").iterdir())
    assert steps == [3, 3]


def test_a_script_that_starts_its_own_run_keeps_it(tmp_path: Path) -> None:
    run, _, out = train(
        tmp_path,
        """
        import nissa
        model = net(); optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        def step():
            optimizer.zero_grad(); loss = nn.functional.mse_loss(model(x), y); loss.backward()
            optimizer.step()
        with nissa.start(run_id="own") as run:
            with run.epoch(7):
                step()
                run.validate(loss=0.5, accuracy=0.25)
        """,
    )
    assert run.name == "own"
    assert epochs(run) == [7]
    assert len(losses(run)) == 1
    assert "not observed" not in out


def test_a_run_that_the_script_starts_later_replaces_ours(tmp_path: Path) -> None:
    text = (
        OBSERVED
        + PROBLEM
        + textwrap.dedent("""
        import nissa
        model = net(); optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        def step():
            optimizer.zero_grad(); nn.functional.mse_loss(model(x), y).backward(); optimizer.step()
        step()
        with nissa.start(run_id="own"): step(); step()
        step()  # the script has ended its run and wants no other
        assert nissa.current_run() is None
        """)
    )
    status, _, err = finish(script(text, folder=tmp_path, environ=EVERY_STEP))
    assert status == 0, err
    steps = {run.name == "own": len(losses(run)) for run in (tmp_path / "nissa-runs").iterdir()}
    assert steps == {False: 1, True: 2}


def test_everything_is_restored(tmp_path: Path) -> None:
    run, _, _ = train(
        tmp_path,
        """
        from torch.utils.data.dataloader import _BaseDataLoaderIter
        from torch.optim import optimizer as hooks
        from nissa.integrations.zero_code import uninstrument
        places = [(torch.Tensor, "backward"), (torch.amp.GradScaler, "scale"), (DataLoader, "__iter__"),
                  (_BaseDataLoaderIter, "__next__")]
        observed = [vars(owner)[name] for owner, name in places]
        model = net(); optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for a, b in DataLoader(data, batch_size=8):
            nn.functional.mse_loss(model(a), b).backward(); optimizer.step()
        uninstrument()
        assert all(vars(owner)[name] is getattr(each, "_method", None) or vars(owner)[name] is getattr(each, "method", None) for (owner, name), each in zip(places, observed))
        assert not hooks._global_optimizer_pre_hooks
        assert not optimizer._optimizer_step_pre_hooks and not optimizer._optimizer_step_post_hooks
        import nissa
        assert nissa.current_run() is None
        optimizer.step()
        """,
    )
    assert len(values(run, "nissa.step")) == 3


def test_a_setting_that_cannot_be_used_does_not_reach_the_script(tmp_path: Path) -> None:
    text = (
        OBSERVED
        + PROBLEM
        + textwrap.dedent("""
        model = net(); optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(3):
            nn.functional.mse_loss(model(x), y).backward(); optimizer.step()
        print("trained")
        """)
    )
    status, out, err = finish(script(text, folder=tmp_path, environ={"NISSA_PROFILE": "dignostic"}))
    assert (status, out.strip()) == (0, "trained")
    assert err.count("This script is not observed") == 1
    assert "dignostic" in err


def test_tracebacks_have_no_frame_of_ours(tmp_path: Path) -> None:
    text = PROBLEM + textwrap.dedent("""
        import traceback
        class Broken(torch.utils.data.Dataset):
            def __len__(self): return 4
            def __getitem__(self, index): return 1 / (2 - index)
        model = net(); scaler = torch.amp.GradScaler("cpu")
        def unused(): model(x).backward()
        def scaled(): scaler.scale(model(x)).backward()
        def loaded(): list(DataLoader(Broken()))
        def stepped(): torch.optim.SGD(model.parameters(), lr=0.1).step(lambda: 1 / 0)
        def found():
            texts = []
            for fails in (unused, scaled, loaded, stepped):
                try: fails()
                except Exception: texts.append(traceback.format_exc())
            return texts
        plain = found()
        from nissa.integrations.zero_code import instrument
        instrument()
        observed = found()
        assert len(plain) == 4
        assert observed[:3] == plain[:3], observed
        assert [line for line in observed[3].splitlines() if "nissa" not in line][-1] == plain[3].splitlines()[-1]
        """)
    status, _, err = finish(script(text, folder=tmp_path, environ=EVERY_STEP))
    assert status == 0, err


@pytest.mark.full  # in a process that is forked from one that has used autograd, compiling fails now and then
def test_a_compiled_model_and_a_compiled_step_train_as_without_us(tmp_path: Path) -> None:
    run, expected, _ = train(
        tmp_path,
        """
        from nissa.integrations.zero_code import uninstrument
        def trained(steps):
            torch.manual_seed(1)
            plain = net(); model = torch.compile(plain, backend="eager")
            optimizer = torch.optim.SGD(plain.parameters(), lr=0.1)
            @torch.compile(backend="eager")
            def whole(a, b):
                optimizer.zero_grad(); loss = nn.functional.mse_loss(plain(a), b); loss.backward(); optimizer.step()
                return loss
            found = []
            for _ in range(steps):
                optimizer.zero_grad(); loss = nn.functional.mse_loss(model(x), y); loss.backward(); optimizer.step()
                found.append(loss.item())
            found += [whole(x, y).item() for _ in range(2)]
            return found
        observed = trained(3)
        uninstrument()
        assert trained(3) == observed
        print(json.dumps(observed))
        """,
    )
    assert losses(run)[:3] == pytest.approx(expected[:3])
    phases = {point.attributes["nissa.step.phase"] for point in points(run, "nissa.step.phase.duration")}
    assert {"forward", "backward", "optimizer"} <= phases  # by the wrapper of torch.compile
    names = {point.attributes["nissa.parameter.name"] for point in points(run, "nissa.gradient.norm")}
    assert names == {"0.weight", "0.bias", "2.weight", "2.bias"}


def test_two_optimizers_of_one_model_and_one_that_nobody_can_find(tmp_path: Path) -> None:
    run, expected, out = train(
        tmp_path,
        """
        model = net()
        first, second = torch.optim.SGD(model[0].parameters(), lr=0.1), torch.optim.Adam(model[2].parameters())
        loose = torch.zeros(3, requires_grad=True); third = torch.optim.SGD([loose], lr=0.1)
        for _ in range(2):
            loss = nn.functional.mse_loss(model(x + loose), y); loss.backward()
            for each in (first, second, third): each.step(); each.zero_grad()
            losses.append(loss.item())
        print(json.dumps(losses))
        """,
    )
    assert values(run, "nissa.loss", **{"nissa.model.name": "Linear"}) == pytest.approx(expected)
    models = {point.attributes["nissa.model.name"] for point in points(run, "nissa.gradient.norm")}
    assert models == {"Linear", "Linear_2"}
    assert out.count("no module owns its parameters") == 1
