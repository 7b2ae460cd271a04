"""Searches by Optuna: what is drawn, told and pruned, and that a search goes on as if it had not stopped."""

import json
import os
import pickle
import re
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from conftest import Ran
from hydra.core.override_parser.overrides_parser import OverridesParser
from optuna.trial import TrialState
from test_sweeps import CHEAP, ctrl_c, held, jobs_of, numbers, read, side_by_side, snapshot, statuses

from seqexp.config.sweep import SweepConfig
from seqexp.errors import UserError
from seqexp.sweeps.search import PruningWatch, Search, Space
from seqexp.tracking.sweep_folder import SweepFolder
from seqexp.training.loop import Trainer

Main = Callable[..., Ran]

pytestmark = pytest.mark.usefixtures("one_thread")

RATES = "optimizer.lr=tag(log,interval(1e-3,1e-1))"
SEARCH = (*CHEAP, "sweep=optuna", "sweep.name=s")
TWO_NUMBERS = ("x=interval(-2.0,2.0)", "y=interval(-1.0,3.0)")
A_GRID = ("x=1,2,3", "y=range(0,7,2)")


def study_of(name: str = "s") -> optuna.Study:
    """The study in a sweep's folder, opened by Optuna alone."""
    return optuna.load_study(study_name=None, storage=f"sqlite:///outputs/sweeps/{name}/study.db")


def states(name: str = "s") -> list[str]:
    return [trial.state.name for trial in study_of(name).trials]


def parameters(trials: Sequence[Any]) -> list[dict[str, Any]]:
    return [dict(trial.params) for trial in trials]


def search_of(place: Path, words: Sequence[str], **settings: Any) -> Search:
    """A search in a folder, without commands around it."""
    values = {"n_trials": 20, "sampler": "tpe", "pruner": "none", **settings}
    objectives = dict.fromkeys(values.get("objectives") or ["val/loss"], "min")
    space = Space(OverridesParser.create().parse_overrides(list(words)))
    return Search(
        SweepFolder(place), SweepConfig(name="s", method="optuna", **values), space, objectives, seed=3
    )


def value_of(trial: Any) -> float:
    """A bowl with its lowest point at x = 0.5, y = 1."""
    return (trial.params["x"] - 0.5) ** 2 + (trial.params["y"] - 1) ** 2


def run_trials(search: Search, n_trials: int, at_once: int = 1) -> None:
    while (left := n_trials - search.done()) > 0 and search.drawable() > 0:
        for trial in search.ask(min(at_once, left)):
            search.tell(trial, [value_of(trial)])


# What is searched over


@pytest.mark.parametrize(
    ("word", "wanted"),
    [
        ("x=interval(0.5,2)", optuna.distributions.FloatDistribution(0.5, 2.0)),
        ("x=tag(log,interval(1e-4,1e-2))", optuna.distributions.FloatDistribution(1e-4, 1e-2, log=True)),
        ("x=int(interval(1,8))", optuna.distributions.IntDistribution(1, 8)),
        ("x=tag(log,int(interval(1,64)))", optuna.distributions.IntDistribution(1, 64, log=True)),
        ("x=range(1,5)", optuna.distributions.IntDistribution(1, 4)),  # as in Python, without its end
        ("x=range(1,6,2)", optuna.distributions.IntDistribution(1, 5, step=2)),
        ("x=8,16,64", optuna.distributions.CategoricalDistribution([8, 16, 64])),
        ("x=0.1,1e-3", optuna.distributions.CategoricalDistribution([0.1, 0.001])),
        ("x=rnn,lstm", optuna.distributions.CategoricalDistribution(["rnn", "lstm"])),
        ("x=true,false", optuna.distributions.CategoricalDistribution(["True", "False"])),
        ("x=1,null", optuna.distributions.CategoricalDistribution(["1", "null"])),
    ],
)
def test_what_a_word_leaves_to_the_search(word: str, wanted: optuna.distributions.BaseDistribution) -> None:
    space = Space(OverridesParser.create().parse_overrides(["seed=4", "z=choice(5)", word]))
    assert space.distributions == {"x": wanted}
    assert space.fixed == ["seed=4", "z=5"]


def test_the_words_of_a_trial_say_its_parameters(tmp_path: Path) -> None:
    """Read again by Hydra's own grammar they are the same values."""
    words = ("seed=4", "a=interval(0.5,2)", "b=range(1,5)", "c=8,16,64", "d=true,false", "e='x y','z, w'")
    search = search_of(tmp_path / "s", words, sampler="random")
    for _ in range(10):
        (trial,) = search.ask(1)
        read_again = {
            override.key_or_group: override.value()
            for override in OverridesParser.create().parse_overrides(search.overrides(trial))
        }
        assert read_again["seed"] == 4
        assert 0.5 <= read_again["a"] <= 2
        assert read_again["a"] == trial.params["a"]
        assert read_again["b"] in (1, 2, 3, 4)
        assert read_again["c"] in (8, 16, 64)
        assert read_again["d"] in (True, False)
        assert str(read_again["e"]) in ("x y", "z, w")


# Going on


@pytest.mark.parametrize(
    ("sampler", "at_once"),
    [
        ("tpe", 1),
        *(pytest.param(*one, marks=pytest.mark.slow) for one in (("tpe", 4), ("cmaes", 1), ("random", 1))),
    ],
)
def test_a_search_that_stopped_draws_what_it_would_have_drawn(
    tmp_path: Path, sampler: str, at_once: int
) -> None:
    """Twenty trials, stopped in the seventh (or the batch it is in): none lost, none doubled."""
    whole = search_of(tmp_path / "whole", TWO_NUMBERS, sampler=sampler)
    run_trials(whole, 20, at_once)
    stopped = search_of(tmp_path / "stopped", TWO_NUMBERS, sampler=sampler)
    run_trials(stopped, 7 if at_once == 1 else 8, at_once)
    left = stopped.ask(at_once)
    again = search_of(tmp_path / "stopped", TWO_NUMBERS, sampler=sampler)
    trials = again.ask(at_once)
    assert [trial.number for trial in trials] == [trial.number for trial in left]
    assert parameters(trials) == parameters(left)
    for trial in trials:
        again.tell(trial, [value_of(trial)])
    run_trials(again, 20, at_once)
    trials = again.study.trials
    assert [trial.number for trial in trials] == list(range(20))
    assert {trial.state for trial in trials} == {TrialState.COMPLETE}
    assert parameters(trials) == parameters(whole.study.trials)
    assert [trial.value for trial in trials] == [value_of(trial) for trial in trials]
    assert len({tuple(trial.params.values()) for trial in trials}) == 20
    other = search_of(tmp_path / "other", TWO_NUMBERS, sampler=sampler)
    other.seed = 4
    run_trials(other, 2)
    assert parameters(other.study.trials) != parameters(trials[:2])


@pytest.mark.slow
def test_the_samplers_differ_and_learn(tmp_path: Path) -> None:
    found = {}
    for sampler in ("tpe", "cmaes", "random"):
        search = search_of(tmp_path / sampler, TWO_NUMBERS, sampler=sampler)
        run_trials(search, 40)
        found[sampler] = [trial.value for trial in search.study.trials]
    assert found["tpe"] != found["random"] != found["cmaes"]
    late = {sampler: statistics.mean(values[20:]) for sampler, values in found.items()}
    assert late["tpe"] < 0.7 * late["random"]
    assert late["cmaes"] < 0.7 * late["random"]


@pytest.mark.parametrize("at_once", [1, 5])
def test_a_grid_visits_each_point_once(tmp_path: Path, at_once: int) -> None:
    """Also when it is stopped, when a point fails, and when its size is no multiple of the batch."""
    search = search_of(tmp_path / "s", A_GRID, sampler="grid")
    search.tell(search.ask(1)[0], "failed")
    (left,) = search.ask(1)
    search = search_of(tmp_path / "s", A_GRID, sampler="grid")
    assert search.done() == 0
    run_trials(search, 20, at_once)
    trials = [trial for trial in search.study.trials if trial.state == TrialState.COMPLETE]
    points = sorted((trial.params["x"], trial.params["y"]) for trial in trials)
    assert points == [(x, y) for x in (1, 2, 3) for y in (0, 2, 4, 6)]
    assert left.number in [trial.number for trial in trials]


def test_the_point_of_a_grid_that_failed_last_is_tried_again(tmp_path: Path) -> None:
    """Every point was visited, but of one nothing is known."""
    search = search_of(tmp_path / "s", ("x=1,2", "y=3,4"), sampler="grid")
    for i in range(4):
        (trial,) = search.ask(1)
        search.tell(trial, "failed" if i == 1 else [value_of(trial)])
    search = search_of(tmp_path / "s", ("x=1,2", "y=3,4"), sampler="grid")
    run_trials(search, 20)
    done = [trial for trial in search.study.trials if trial.state == TrialState.COMPLETE]
    assert sorted((trial.params["x"], trial.params["y"]) for trial in done) == [
        (1, 3),
        (1, 4),
        (2, 3),
        (2, 4),
    ]


def test_a_failed_trial_is_tried_again_and_counts_once(tmp_path: Path) -> None:
    search = search_of(tmp_path / "s", TWO_NUMBERS)
    for i in range(5):
        (trial,) = search.ask(1)
        search.tell(trial, "failed" if i in (1, 3) else [value_of(trial)])
    assert search.done() == 5
    for call in range(2):  # and once more if it fails again
        search = search_of(tmp_path / "s", TWO_NUMBERS)
        assert search.done() == 3 + call
        trials = search.ask(2 - call)
        failed = [search.study.trials[number] for number in (1, 3)][call:]
        assert parameters(trials) == parameters(failed)
        if call == 0:
            search.tell(trials[0], [value_of(trials[0])])
            search.tell(trials[1], "failed")
            assert search.done() == 5
        else:
            search.tell(trials[0], [value_of(trials[0])])
    search = search_of(tmp_path / "s", TWO_NUMBERS)
    assert search.done() == 5
    run_trials(search, 6)
    complete = [trial for trial in search.study.trials if trial.state == TrialState.COMPLETE]
    assert len(complete) == 6
    assert len({tuple(trial.params.values()) for trial in complete}) == 6


def test_another_search_in_the_same_folder(tmp_path: Path) -> None:
    """Refused, with what differs; how long, how and where may differ."""
    run_trials(search_of(tmp_path / "s", TWO_NUMBERS), 1)
    for words, told in (
        (("x=interval(-2.0,4.0)", TWO_NUMBERS[1]), "x: "),
        ((*TWO_NUMBERS, "seed=2"), "without seed=2"),
        ((*TWO_NUMBERS, "z=interval(0.0,1.0)"), "without z: "),
        (TWO_NUMBERS[:1], "with y: "),
    ):
        with pytest.raises(UserError) as refused:
            search_of(tmp_path / "s", words)
        assert told in str(refused.value)
        assert "another sweep.name" in str(refused.value)
    same = search_of(tmp_path / "s", (*TWO_NUMBERS, "device.threads=1", "sweep.n_trials=7"), sampler="random")
    assert len(same.study.trials) == 1


class Evil:
    """What pickle would run when it is read."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("evil",)


def test_a_pickle_in_a_study_is_looked_at_before_it_is_read(run_main: Main) -> None:
    """Optuna keeps the state of CMA-ES as a pickle in a trial; a stranger's study could hold anything."""
    words = (*SEARCH, "optimizer.lr=interval(1e-3,1e-1)", "trainer.max_grad_norm=interval(0.5,2.0)")
    words = (*words, "sweep.sampler=cmaes")
    assert run_main(*words, "sweep.n_trials=2").code == 0
    study = study_of()
    study.sampler = optuna.samplers.RandomSampler(1)
    trial = study.ask(dict(study.trials[0].distributions))
    text = pickle.dumps(Evil()).hex()
    study._storage.set_trial_system_attr(trial._trial_id, "cma:optimizer:0", text[:20])
    study._storage.set_trial_system_attr(trial._trial_id, "cma:optimizer:1", text[20:])
    study.tell(trial, 0.5)
    ran = run_main(*words, "sweep.n_trials=4")
    assert ran.code == 2
    assert "study.db contains other data than the state of CMA-ES" in ran.err.splitlines()[-1]
    assert "mkdir" in ran.err.splitlines()[-1]
    assert not Path("evil").exists()
    assert len(states()) == 3
    # Optuna itself would have made the folder.
    study.sampler = optuna.samplers.CmaEsSampler(seed=1)
    study.ask(dict(study.trials[0].distributions))
    assert Path("evil").exists()


# From the command line


def test_a_search(run_main: Main) -> None:
    """The study is in the sweep's folder; each trial has a run, and its value is its best loss."""
    ran = run_main(*SEARCH, RATES, "model=rnn,gru", "sweep.n_trials=4", "trainer.eval_every=2")
    assert ran.code == 0, ran.err
    study = study_of()
    assert [direction.name for direction in study.directions] == ["MINIMIZE"]
    assert [trial.number for trial in study.trials] == [0, 1, 2, 3]
    for trial, job in zip(study.trials, jobs_of(), strict=True):
        assert job.name.startswith(f"{trial.number}_")
        config = yaml.safe_load((job / "config.yaml").read_text())
        assert config["optimizer"]["lr"] == trial.params["optimizer.lr"]
        assert config["model"]["name"] == trial.params["model"]
        losses = [row["val/loss"] for row in numbers(job) if "val/loss" in row]
        assert len(losses) == 10
        assert trial.values == [min(losses)]
    best = min(trial.value for trial in study.trials)
    assert re.search(rf"^s: 4 of 4 jobs done, best val/loss {best:.4g} \(.*optimizer.lr=", ran.err, re.M)


@pytest.mark.slow
def test_a_search_goes_on_to_a_number_in_all(run_main: Main) -> None:
    """Interrupted in the third trial, continued, made longer; then there is nothing left to do."""
    words = (*SEARCH, RATES)
    train_step = Trainer._train_step

    def interrupting(self: Trainer) -> None:
        if self.step == 13 and self.run.path.name.startswith("2_"):
            ctrl_c()
        train_step(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "_train_step", interrupting)
        ran = run_main(*words, "sweep.n_trials=4")
    assert ran.code == 130
    assert "the same line, with sweep.name=s" in ran.err
    assert states() == ["COMPLETE", "COMPLETE", "RUNNING"]
    assert statuses() == ["finished", "finished", "interrupted"]
    drawn = parameters(study_of().trials)
    done = [snapshot(job) for job in jobs_of()[:2]]

    ran = run_main(*words, "sweep.n_trials=4")
    assert ran.code == 0, ran.err
    assert states() == ["COMPLETE"] * 4
    assert statuses() == ["finished"] * 4
    assert parameters(study_of().trials)[:3] == drawn
    assert read(jobs_of()[2] / "manifest.json")["resumed"][0]["step"] == 14
    assert [snapshot(job) for job in jobs_of()[:2]] == done
    assert "4 of 4 jobs done" in ran.err

    assert run_main(*words, "sweep.n_trials=5").code == 0
    assert states() == ["COMPLETE"] * 5
    before = [snapshot(job) for job in jobs_of()]
    ran = run_main(*words, "sweep.n_trials=5")
    assert ran.code == 0, ran.err
    assert "tok/s" not in ran.err
    assert states() == ["COMPLETE"] * 5
    assert [snapshot(job) for job in jobs_of()] == before

    ran = run_main(*words, "seed=2", "sweep.n_trials=5")
    assert ran.code == 2
    assert "started without seed=2" in ran.err.splitlines()[-1]


@pytest.mark.slow
def test_twenty_trials_interrupted_at_seven(run_main: Main) -> None:
    """The same as twenty at once: same study, no trial lost or doubled, the same parameters and values."""
    words = (*SEARCH[:-1], RATES, "model.hidden_size=range(8,33,8)", "sweep.n_trials=20")
    train_step = Trainer._train_step

    def interrupting(self: Trainer) -> None:
        if self.step == 13 and self.run.path.name.startswith("6_"):
            ctrl_c()
        train_step(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "_train_step", interrupting)
        assert run_main(*words, "sweep.name=stopped").code == 130
    assert states("stopped") == ["COMPLETE"] * 6 + ["RUNNING"]
    waiting = study_of("stopped").trials[6]
    assert run_main(*words, "sweep.name=stopped").code == 0
    assert run_main(*words, "sweep.name=whole").code == 0
    stopped, whole = study_of("stopped").trials, study_of("whole").trials
    assert [trial.number for trial in stopped] == list(range(20))
    assert parameters([stopped[6]]) == parameters([waiting])
    assert parameters(stopped) == parameters(whole)
    assert [trial.value for trial in stopped] == [trial.value for trial in whole]
    assert states("stopped") == ["COMPLETE"] * 20
    assert len(optuna.get_all_study_summaries("sqlite:///outputs/sweeps/stopped/study.db")) == 1
    assert len(jobs_of("stopped")) == 20
    assert statuses("stopped") == ["finished"] * 20


def test_failed_trials_of_a_search(run_main: Main) -> None:
    """One fails: the others go on, the exit code says so, and the same line tries it again."""
    words = (*SEARCH, RATES, "sweep.n_trials=3")
    train_step = Trainer._train_step

    def failing(self: Trainer) -> None:
        if self.run.path.name.startswith("1_"):
            raise ZeroDivisionError("a fault in the middle")
        train_step(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "_train_step", failing)
        ran = run_main(*words)
    assert ran.code == 1
    assert states() == ["COMPLETE", "FAIL", "COMPLETE"]
    assert statuses() == ["finished", "failed", "finished"]
    lr = study_of().trials[1].params["optimizer.lr"]
    assert f"optimizer.lr={lr:.4g}: a fault in the middle" in ran.err.splitlines()[-1]
    done = [snapshot(job) for job in jobs_of()[::2]]
    ran = run_main(*words)
    assert ran.code == 0, ran.err
    assert states() == ["COMPLETE", "FAIL", "COMPLETE", "COMPLETE"]
    assert study_of().trials[3].params == {"optimizer.lr": lr}
    assert len(jobs_of()) == 3, "in the folder that it had"
    assert statuses() == ["finished"] * 3
    assert [snapshot(job) for job in jobs_of()[::2]] == done
    assert "3 of 3 jobs done" in ran.err
    assert run_main(*words).code == 0
    assert len(states()) == 4


def test_an_accuracy_is_maximised(run_main: Main) -> None:
    ran = run_main(*SEARCH, RATES, "sweep.n_trials=2", "trainer.monitor=val/accuracy", "trainer.eval_every=2")
    assert ran.code == 0, ran.err
    study = study_of()
    assert [direction.name for direction in study.directions] == ["MAXIMIZE"]
    for trial, job in zip(study.trials, jobs_of(), strict=True):
        assert trial.value == max(row["val/accuracy"] for row in numbers(job) if "val/accuracy" in row)


def test_two_objectives(run_main: Main) -> None:
    """A model that is good and small: a study with two directions."""
    ran = run_main(
        *SEARCH, "model.hidden_size=4,8,12", "sweep.sampler=grid", "sweep.objectives=[val/loss,parameters]"
    )
    assert ran.code == 0, ran.err
    study = study_of()
    assert [direction.name for direction in study.directions] == ["MINIMIZE", "MINIMIZE"]
    assert sorted(trial.params["model.hidden_size"] for trial in study.trials) == [4, 8, 12]
    for trial, job in zip(study.trials, jobs_of(), strict=True):
        losses = [row["val/loss"] for row in numbers(job) if "val/loss" in row]
        assert trial.values == [min(losses), read(job / "manifest.json")["parameters"]["total"]]
    sizes = {trial.params["model.hidden_size"]: trial.values[1] for trial in study.trials}
    assert sizes[4] < sizes[8] < sizes[12]


@pytest.mark.slow
def test_the_median_prunes(run_main: Main) -> None:
    """A trial ends where the best it has seen is worse than the median of earlier ones at that validation."""
    ran = run_main(
        *SEARCH, "optimizer=sgd", "optimizer.lr=tag(log,interval(1e-6,1.0))", "sweep.n_trials=10",
        "sweep.sampler=random", "sweep.pruner=median", "trainer.eval_every=5",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    complete: list[list[float]] = []
    pruned = 0
    for trial, job in zip(study_of().trials, jobs_of(), strict=True):
        losses = [row["val/loss"] for row in numbers(job) if "val/loss" in row]
        end = 4
        for k in range(3) if len(complete) >= 4 else ():  # the last validation prunes nothing
            if min(losses[: k + 1]) > statistics.median(other[k] for other in complete):
                end = k + 1
                break
        assert len(losses) == end
        status = read(job / "status.json")
        if end == 4:
            complete.append(losses)
            assert (trial.state, status["ending"]) == (TrialState.COMPLETE, "finished")
        else:
            pruned += 1
            assert (trial.state, status["ending"]) == (TrialState.PRUNED, "pruned")
            assert status["status"] == "finished"
            assert read(job / "result.json")["ending"] == "pruned"
            assert "pruned" in (job / "train.log").read_text(encoding="utf-8")
    assert pruned >= 2
    assert f"10 of 10 jobs done, {pruned} pruned, best" in ran.err


def test_hyperband_prunes(tmp_path: Path) -> None:
    """Of trials that are good, middling and bad, only ones that are not the best end early."""
    settings = {"pruner": "hyperband", "sampler": "random"}
    search = search_of(tmp_path / "s", TWO_NUMBERS, **settings)
    ended = {}
    for number in range(12):
        (trial,) = search.ask(1)
        told = SweepConfig(name="s", method="optuna", n_trials=12, trial=number, **settings)
        watch = PruningWatch(SweepFolder(tmp_path / "s"), told, "val/loss", 10)
        badness = number % 3
        for validation in range(1, 10):
            if watch(10 * validation, {"val/loss": badness + 1 / validation}):
                search.tell(trial, "pruned")
                ended[number] = validation
                break
        else:
            search.tell(trial, [badness])
    assert len([number for number in ended if number % 3]) >= 3
    assert not [number for number in ended if number % 3 == 0]
    frozen = search.study.trials[min(ended)]
    assert frozen.state == TrialState.PRUNED
    assert list(frozen.intermediate_values) == list(range(1, ended[min(ended)] + 1))


def test_a_resumed_trial_may_report_a_validation_twice(tmp_path: Path) -> None:
    search = search_of(tmp_path / "s", TWO_NUMBERS, pruner="median")
    (trial,) = search.ask(1)
    told = SweepConfig(name="s", method="optuna", n_trials=2, trial=0, sampler="tpe", pruner="median")
    for values in ((3.0, 2.0), (2.0, 1.0)):
        watch = PruningWatch(SweepFolder(tmp_path / "s"), told, "val/loss", 10)
        first = 1 if values[0] == 3.0 else 2
        for i, value in enumerate(values):
            assert watch(10 * (first + i), {"val/loss": value}) is False
    assert search.study.trials[trial.number].intermediate_values == {1: 3.0, 2: 2.0, 3: 1.0}


def test_a_second_process_on_the_same_search_is_refused(run_main: Main) -> None:
    words = (*SEARCH, RATES, "sweep.n_trials=1")
    assert run_main(*words).code == 0
    with held(Path("outputs/sweeps/s/.lock")):
        ran = run_main(*words[:-1], "sweep.n_trials=2")
    assert ran.code == 2
    assert "in use by another search" in ran.err.splitlines()[-1]
    assert states() == ["COMPLETE"]
    assert len(jobs_of()) == 1


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("sweep=optuna",), "sweep=optuna is for several runs; add -m"),
        (("-m", "sweep=optuna"), "sweep=optuna has nothing to search over"),
        (("-m", "sweep=optuna", RATES, "model=rnn,gru", "sweep.sampler=cmaes"), "model is a choice"),
        (("-m", "sweep=optuna", RATES, "sweep.sampler=grid"), "optimizer.lr is an interval"),
        (("-m", "sweep=optuna", RATES, "sweep.sampler=best"), "sweep.sampler=best is not known"),
        (("-m", "sweep=optuna", RATES, "sweep.pruner=best"), "sweep.pruner=best is not known"),
        (
            ("-m", "sweep=optuna", RATES, "sweep.pruner=median", "sweep.objectives=[val/loss,parameters]"),
            "sweep.pruner=median goes with one objective",
        ),
        (("-m", "sweep=optuna", RATES, "sweep.n_trials=0"), "sweep.n_trials=0"),
        (("-m", "sweep=optuna", RATES, "sweep.n_trials=null"), "sweep.n_trials"),
        (("-m", "sweep=optuna", RATES, "sweep.objectives=val/loss"), "sweep.objectives=[val/loss]"),
        (("-m", "sweep=optuna", "optimizer.lr=interval(0.1,0.01)"), "optimizer.lr"),
        (("-m", "sweep=optuna", "optimizer.lr=tag(log,interval(0.0,0.01))"), "optimizer.lr"),
        (
            (
                "-m",
                "sweep=optuna",
                RATES,
                "sweep.pruner=median",
                "sweep.objectives=[parameters]",
                "sweep.n_trials=1",
            ),
            "parameters",
        ),
    ],
)
def test_mistakes_with_a_search(run_main: Main, words: tuple[str, ...], told: str) -> None:
    """Each is one line, before anything is trained."""
    ran = run_main(*(word for word in CHEAP if word != "-m"), *words, "sweep.name=s")
    assert ran.code == 2, ran.err
    assert told in ran.err.splitlines()[-1]
    assert "Traceback" not in ran.err
    assert not list(Path("outputs").glob("sweeps/*/*_*"))


def test_an_objective_that_is_not_measured(run_main: Main) -> None:
    """Which metrics there are, only a job knows."""
    ran = run_main(*SEARCH, RATES, "sweep.objectives=[val/bleu]", "sweep.n_trials=1")
    assert ran.code in (1, 2)
    assert "sweep.objectives=val/bleu is not known; it must be one of val/loss" in ran.err.splitlines()[-1]
    assert "Traceback" not in ran.err


# Side by side


@pytest.mark.slow
def test_a_search_side_by_side(tmp_path: Path) -> None:
    """Two trials at once, of which some are the same: every trial comes to its value."""
    process = side_by_side(
        tmp_path, *SEARCH, "model.hidden_size=4,8", "sweep.sampler=random", "sweep.n_trials=8",
        "hydra/launcher=joblib", "hydra.launcher.n_jobs=2",
    )  # fmt: skip
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    trials = study_of().trials
    assert [trial.number for trial in trials] == list(range(8))
    pairs = [trials[i : i + 2] for i in range(0, 8, 2)]
    assert any(one.params == other.params for one, other in pairs), "else another seed is needed"
    assert states() == ["COMPLETE"] * 8
    by_size: dict[int, set[float]] = {}
    for trial in trials:
        by_size.setdefault(trial.params["model.hidden_size"], set()).add(trial.value)
    assert sorted(map(len, by_size.values())) == [1, 1]
    assert "8 of 8 jobs done" in err


def test_settings_of_a_trial_on_the_hparams_page(run_main: Main) -> None:
    """What a search drew is what TensorBoard is told."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    assert run_main(*SEARCH, RATES, "sweep.n_trials=1").code == 0
    (job,) = jobs_of()
    events = EventAccumulator(str(job / "tensorboard")).Reload()
    content = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    hparams = HParamsPluginData.FromString(content).session_start_info.hparams
    assert {key: value.number_value for key, value in hparams.items()} == study_of().trials[0].params
    assert json.loads((job / "result.json").read_text())["metrics"]["val/loss"] == pytest.approx(
        events.Scalars("best/val/loss")[0].value, rel=1e-6
    )
