"""`Task.predict`: what a caller of any task may do while predictions come."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from seqexp.commands.build import TrainedRun, build_task, load_trained_run
from seqexp.config.run import DeviceConfig, GenerationConfig
from seqexp.data.parallel import pair_tokenizer
from seqexp.decoding.translation import Translator
from seqexp.errors import UserError
from seqexp.tasks.base import PredictOptions, Task
from seqexp.tracking.run_folder import RunFolder

RUNS = Path(__file__).with_name("runs")
INPUTS = {
    "schema_1_gpt": ["The ", "A "],
    "schema_1_lstm": ["The ", "A "],
    "schema_1_nmt": ["Antoine and Julie are happy.", "I am here.", ""],
    "schema_1_transformer": ["Antoine and Julie are happy.", "I am here.", ""],
    "schema_1_parity": ["0110", "1", "01" * 6],
}
OPTIONS = PredictOptions(GenerationConfig(max_new_tokens=5, beam_size=2), seed=1)


@pytest.fixture(params=INPUTS)
def trained(request: pytest.FixtureRequest) -> tuple[TrainedRun, Task, list[str]]:
    run = load_trained_run(RunFolder(RUNS / request.param), "best", DeviceConfig(name="cpu", threads=1))
    return run, build_task(run.config.task), INPUTS[request.param]


def drop(model: torch.nn.Module) -> None:
    """Let every layer drop half, so that evaluation mode is seen in the results."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.5
        if isinstance(getattr(module, "dropout", None), float):
            module.dropout = 0.5  # type: ignore[assignment]


def results(run: TrainedRun, task: Task, inputs: list[str], options: PredictOptions = OPTIONS) -> list[Any]:
    found = task.predict(run.model, run.preprocessor, inputs, options)
    return sorted((p.index, p.texts) for p in found if p.final)


def test_the_caller_may_train_between_two_predictions(trained: tuple[TrainedRun, Task, list[str]]) -> None:
    run, task, inputs = trained
    run.model.train()
    before = [p.detach().clone() for p in run.model.parameters()]
    seen = set()
    for prediction in task.predict(run.model, run.preprocessor, inputs, OPTIONS):
        assert run.model.training
        assert torch.is_grad_enabled()
        assert not torch.is_inference_mode_enabled()
        sum(p.square().sum() for p in run.model.parameters() if p.requires_grad).backward()
        with torch.no_grad():
            for parameter in run.model.parameters():
                if parameter.grad is not None:
                    parameter -= 1e-3 * parameter.grad
        run.model.zero_grad()
        seen.add(prediction.index)
    assert seen == set(range(len(inputs)))
    assert any(not torch.equal(old, new) for old, new in zip(before, run.model.parameters(), strict=True))


def test_predictions_are_made_in_evaluation_mode(trained: tuple[TrainedRun, Task, list[str]]) -> None:
    """Whatever the mode of the caller, which stays."""
    run, task, inputs = trained
    drop(run.model)
    expected = results(run, task, inputs)
    run.model.train()
    assert results(run, task, inputs) == expected
    assert run.model.training


def test_every_input_has_one_final_prediction(trained: tuple[TrainedRun, Task, list[str]]) -> None:
    run, task, inputs = trained
    found = list(task.predict(run.model, run.preprocessor, inputs, OPTIONS))
    assert sorted(p.index for p in found if p.final) == list(range(len(inputs)))
    for prediction in found:
        assert prediction.texts
        assert isinstance(prediction.text, str)


def test_nothing_is_printed_and_no_folder_is_made(
    trained: tuple[TrainedRun, Task, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    run, task, inputs = trained
    results(run, task, inputs)
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize(
    ("name", "wrong"), [("schema_1_gpt", "\N{SNOWMAN}"), ("schema_1_parity", "012"), ("schema_1_parity", "")]
)
def test_a_wrong_input_is_refused_at_the_call(name: str, wrong: str) -> None:
    """Before anything is predicted, and before the first prediction is asked for."""
    run = load_trained_run(RunFolder(RUNS / name), "best", DeviceConfig(name="cpu", threads=1))
    task = build_task(run.config.task)
    with pytest.raises(UserError):
        task.predict(run.model, run.preprocessor, [wrong], OPTIONS)


@pytest.mark.parametrize("name", ["schema_1_nmt", "schema_1_transformer"])
def test_a_translator_leaves_the_mode(name: str) -> None:
    run = load_trained_run(RunFolder(RUNS / name), "best", DeviceConfig(name="cpu", threads=1))
    drop(run.model)
    tokenizer = pair_tokenizer(run.preprocessor)
    config = replace(OPTIONS.generation, beam_size=1)
    found = []
    for mode in (False, True):
        run.model.train(mode)
        translator = Translator(run.model, tokenizer, config, torch.device("cpu"))
        some = {}
        for number, (best,), _ in translator.translate(INPUTS[name]):
            assert run.model.training == mode
            assert torch.is_grad_enabled()
            assert not torch.is_inference_mode_enabled()
            some[number] = best.text
        found.append(some)
    assert found[0] == found[1]
