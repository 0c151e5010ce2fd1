"""The rates of fits: recorded on this machine, or estimated for its class of processors."""

import json

import pytest

from builders import small_config
from stpm_bench import grid
from stpm_bench.config import complete
from stpm_bench.provenance import processor
from stpm_bench.results import fit_folder
from stpm_bench.run import rates, resources

TEACHERS = {name: {"backbone": name, "draws": 1} for name in ("resnet18", "resnet50")}


@pytest.fixture
def config(small_set):
    main = small_config(small_set)["studies"]["main"] | {"teacher": list(TEACHERS)}
    return complete(small_config(small_set, teachers=TEACHERS, studies={"main": main}))


def fits_of(config) -> dict:
    return grid.fit_names(grid.studies(config))


def record(config, teacher: str, rate: float, **changes) -> None:
    """Write the record of the first of a teacher's fits that has none yet."""
    for cell, fit in fits_of(config).items():
        path = fit_folder(config["results"], fit) / "fit.json"
        if cell.teacher == teacher and not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            own = {"processor": processor(), "threads": 1, "device": "cpu"}
            path.write_text(json.dumps({"images_per_second": rate} | own | changes))
            return


def use_gpus(monkeypatch, count: int) -> None:
    monkeypatch.setattr(rates, "gpus", lambda config: count * (config["device"] != "cpu"))


def use(monkeypatch, kind: str) -> None:
    monkeypatch.setattr(rates, "processor_class", lambda: kind)


@pytest.mark.parametrize(
    ("flags", "kind"),
    [
        ("fpu avx avx2 fma", "AVX2"),
        ("avx2 avx512f avx512_bf16", "AVX-512 BF16"),
        ("avx2 avx512f amx_bf16 amx_tile", "AVX-512 BF16"),
        ("avx2 avx512f", "AVX-512"),
        ("", "AVX2"),
    ],
)
def test_the_class_follows_the_processors_flags(monkeypatch, tmp_path, flags, kind):
    (tmp_path / "cpuinfo").write_text(f"model name\t: x\nflags\t\t: {flags}\nbugs\t: none\n")
    monkeypatch.setattr(rates, "Path", lambda path: tmp_path / "cpuinfo")
    assert rates.processor_class.__wrapped__() == kind
    assert kind in rates.STUDENT


@pytest.mark.parametrize(
    ("kind", "precision", "rate"),
    [
        ("AVX-512 BF16", "auto", 27),
        ("AVX-512 BF16", "float32", 13),
        ("AVX2", "auto", 4.1),
        ("AVX2", "bfloat16", 4.1),
        ("AVX-512", "auto", 13),
    ],
)
def test_the_estimate_is_of_the_class_and_the_precision(monkeypatch, config, kind, precision, rate):
    use(monkeypatch, kind)
    found = rates.rates(config | {"precision": precision, "image_size": 256}, fits_of(config))
    assert found.assumed["resnet18", "stpm"] == pytest.approx(rate)
    assert f"processors with {kind} ({rate:g} images/s" in found.source


def test_the_estimate_follows_backbone_and_size(config):
    small = rates.rates(config, {}).assumed
    large = rates.rates(config | {"image_size": 128}, {}).assumed
    assert small["resnet18", "stpm"] == 5 * small["resnet50", "stpm"]
    assert small["resnet18", "stpm"] == 4 * large["resnet18", "stpm"]


def test_what_fits_recorded_counts_for_their_backbone(config):
    record(config, "resnet18", 40.0)
    record(config, "resnet18", 60.0)
    found = rates.rates(config, fits_of(config))
    assert found.recorded == {("resnet18", "stpm"): 50.0}
    cells = grid.cells(grid.studies(config))
    of_18, of_50 = ([c for c in cells if c.teacher == name] for name in TEACHERS)
    assert "estimate" not in found.source_text(of_18)
    assert "recorded" not in found.source_text(of_50)
    assert "; others: an estimate" in found.source_text(cells)


@pytest.mark.parametrize(
    "other",
    [
        {"processor": "another"},
        {"threads": 2},
        {"device": "NVIDIA H100"},
        {"images_per_second": None},
    ],
)
def test_what_another_machine_recorded_does_not_count(config, other):
    record(config, "resnet18", 40.0, **other)
    assert rates.rates(config, fits_of(config)).recorded == {}


def test_what_a_gpu_recorded_counts_where_there_is_one(config, monkeypatch):
    use_gpus(monkeypatch, 1)
    record(config, "resnet18", 400.0, device="NVIDIA H100")
    config = config | {"device": "auto"}
    found = rates.rates(config, fits_of(config))
    assert found.recorded == {("resnet18", "stpm"): 400.0}
    assert rates.rates(config | {"device": "cpu"}, fits_of(config)).recorded == {}


@pytest.mark.parametrize(("threads", "at_once"), [(1, 8), (4, 2), (16, 1)])
def test_hours_are_those_of_all_cores_or_of_the_processes_that_fit(config, threads, at_once):
    """An estimate is per core; a recorded rate is that of a fit with all its threads."""
    config = config | {"threads": threads}
    one, two = [c for c in grid.cells(grid.studies(config)) if c.teacher == "resnet18"]
    key = (one.teacher, one.method)
    assumed = rates.Rates({}, {key: 13.0}, "")
    images = {one: 13 * 3600 * 8, two: 13 * 3600 * 8}
    assert rates.fit_hours(config, images, 8, assumed) == pytest.approx(2)
    known = rates.Rates({key: 50.0}, {key: 13.0}, "")
    hours = rates.fit_hours(config, images, 8, known)
    assert hours == pytest.approx(2 * 13 * 8 / 50 / at_once)


@pytest.mark.parametrize(("precision", "rate"), [("auto", 2300), ("float32", 1100)])
def test_on_gpus_the_estimate_is_of_two_fits_that_share_each(monkeypatch, config, precision, rate):
    use_gpus(monkeypatch, 2)
    config = config | {"device": "auto", "precision": precision, "image_size": 256}
    cell, *_ = fits = fits_of(config)
    found = rates.rates(config, fits)
    assert found.assumed["resnet18", "stpm"] == pytest.approx(rate)
    assert f"a GPU ({rate} images/s" in found.source
    images = {cell: 4 * rate * 3600}
    assert [rates.fits_at_once(config, cores) for cores in (1, 16)] == [1, 4]
    assert rates.fit_hours(config, images, 16, found) == pytest.approx(1)
    known = found._replace(recorded={(cell.teacher, cell.method): rate / 2})
    assert rates.fit_hours(config, images, 16, known) == pytest.approx(2)
    assert rates.place(config, 16) == "2 GPUs"
    on_cpu = config | {"device": "cpu"}
    assert "processors with" in rates.rates(on_cpu, fits).source
    assert [rates.place(on_cpu, cores) for cores in (1, 16)] == ["one core", "16 cores"]


def test_the_systems_gpus_count_unless_the_config_says_cpu(monkeypatch, tmp_path):
    for name in ("0000:01:00.0", "0000:02:00.0"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(rates, "Path", lambda path: tmp_path)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert [rates.gpus({"device": name}) for name in ("auto", "cuda", "cpu")] == [2, 2, 0]
    for visible, count in (("", 0), ("-1", 0), ("1", 1), ("MIG-0a1b", 1), ("0,1", 2), ("0,1,2", 2)):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        assert rates.gpus({"device": "auto"}) == count


def test_as_many_jobs_use_a_gpu_at_once_as_share_it_well(monkeypatch):
    use_gpus(monkeypatch, 3)
    assert resources.gpu_jobs({"device": "auto"}) == {"gpu": 6}
    assert resources.gpu_jobs({"device": "cpu"}) == {}


def test_teachers_hours_are_those_of_their_sets(monkeypatch):
    use(monkeypatch, "AVX-512 BF16")
    settings = {"epochs": 10, "input_size": 32}
    mnist = {"backbone": "resnet18", "pretrain": "mnist", "pretraining": settings}
    teachers = [mnist, mnist, {"backbone": "resnet18"}]
    hours = rates.pretraining_hours(teachers, {"mnist": 60_000}, 2)
    assert hours == pytest.approx(2 * 10 * 60_000 / 670 / 2 / 3600)
    large = mnist | {"pretraining": settings | {"input_size": 64}}
    assert rates.pretraining_hours([large], {"mnist": 60_000}, 2) == pytest.approx(2 * hours)
    use(monkeypatch, "AVX2")
    assert rates.pretraining_hours(teachers, {"mnist": 60_000}, 2) > 6 * hours
