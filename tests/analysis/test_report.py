"""The report of finished runs: what it says, what it refuses to say, and how it looks in a real browser."""

import io
import json
import re
import shutil

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from hf_colearn.analysis.report import report
from hf_colearn.analysis.run import Run, Samples
from hf_colearn.analysis.runs import find_runs, read_runs, write_experiment
from hf_colearn.analysis.statistics.target_variance import target_variance
from hf_colearn.cli import main
from hf_colearn.teachers.bank import TeacherBank
from hf_colearn.teachers.pairing import Paired, RandomPrompt


N, CLASSES, WIDTH = 120, 3, 8
GAINS = {"baseline": ("baseline", 0.0), "text teacher": ("colearned", 0.1), "random vectors": ("null", 0.01)}


def history(arm, seed):
    steps = [
        {"step": s, "epoch": s / 10, "loss": 2 / s + seed / 10, "loss_task": 2 / s + seed / 10} for s in range(1, 6)
    ]
    if arm != "baseline":
        steps = [{**step, "loss_latent": 1 + 1 / step["step"], "alpha": 0.3} for step in steps]
    return steps


def make_run(arm, kind, gain, seed, n=N):
    """A run whose accuracy is 0.6 + gain but for a few samples, by seed; on samples of three separate clouds."""
    rng = np.random.default_rng(seed + sum(map(ord, arm)))
    labels = np.arange(n) % CLASSES
    right = round((0.6 + gain + [0.0, 0.025, -0.025][seed % 3]) * n) + (seed % 3 if kind == "colearned" else 0)
    predictions = np.where(np.arange(n) < right, labels, (labels + 1) % CLASSES)
    latents = (3 * np.eye(WIDTH)[labels] + rng.normal(size=(n, WIDTH))).astype(np.float32)
    targets = None if kind == "baseline" else (5 + rng.normal(size=(n, WIDTH))).astype(np.float32)
    return Run(
        arm, kind, seed, {"accuracy": float((predictions == labels).mean())}, history(arm, seed), 2.0 + seed,
        labels, predictions, np.full(n, 0.8), Samples(labels, latents), Samples(labels, latents + 0.1, targets),
        facts={"class_names": ["cat", "dog", "<emu>"], "num_train": n, "parameters": 1000, "target_variance": 0.9},
    )  # fmt: skip


def make_runs(seeds=(0, 1, 2), gains=GAINS):
    return [make_run(arm, kind, gain, seed) for seed in seeds for arm, (kind, gain) in gains.items()]


FACTS = {"title": "Cats & dogs", "dataset": "three clouds", "command": "accelerate launch recipes/x.py"}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    for run in make_runs():
        run.save(folder / run.arm.replace(" ", "-") / f"seed-{run.seed}")
    write_experiment(folder, FACTS)
    return folder, report(folder, methods=("pca", "tsne"))


def quick(runs, folder, **options):
    """A report whose pictures are drawn as SVG alone: the PNG of the same figure takes a quarter of the time, and is empty."""
    savefig = Figure.savefig

    def save_svg(figure, file, **options):
        return savefig(figure, file, **options) if options.get("format") == "svg" else file.touch()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", save_svg)
        return report(runs, folder, **{"methods": ("pca",), **options})


# ---- what it says ----
def test_the_finding_is_the_first_thing_on_the_page_and_in_every_format(made):
    folder, found = made
    # of 120 samples 12 more, and 0, 1, 2 more by seed: 13 / 120
    assert found.headline.startswith("The teacher's content helped: +10.83 pp")
    page, text = (folder / "report.html").read_text(), (folder / "report.md").read_text()
    content = json.loads((folder / "report.json").read_text())
    for told in (page.replace("&#39;", "'"), text, content["headline"]):
        assert found.headline in told
    assert content["comparison"]["strongest_null"] == "random vectors"
    assert {"arms", "training", "latents", "cost"} <= set(content["findings"])
    assert [(run["arm"], run["seed"]) for run in content["runs"]] == [
        (arm, s) for s in (0, 1, 2) for arm in ("baseline", "text teacher", "random vectors")
    ]


def test_the_page_needs_nothing_else_and_runs_nothing(made):
    page = (made[0] / "report.html").read_text()
    page = page.replace('xmlns="http://www.w3.org/2000/svg"', "")
    assert "<script" not in page and "http://" not in page and "https://" not in page
    assert all(source.startswith("data:image/svg+xml;base64,") for source in re.findall(r'src="([^"]*)"', page))
    assert "Cats &amp; dogs" in page


def test_what_users_call_things_cannot_break_the_page(tmp_path):
    gains = {"baseline": ("baseline", 0.0), "<b onclick=1>|teacher": ("colearned", 0.1), "vectors": ("null", 0.0)}
    quick(make_runs(gains=gains), tmp_path, methods=())
    assert "<b onclick" not in (tmp_path / "report.html").read_text()
    assert "\\|teacher" in (tmp_path / "report.md").read_text()


def test_every_picture_is_there_as_svg_and_png_and_the_same_again(made, tmp_path):
    folder, found = made
    names = {path.name for path in (folder / "figures").iterdir()}
    wanted = {"differences", "loss_task", "loss_latent", "alpha", "transport_train", "transport_test", "map_pca"}
    wanted |= {f"map_tsne_{p}_{kind}" for p in (5, 30) for kind in ("baseline", "colearned", "clouds")}
    wanted |= {"map_pca_clouds", "map_tsne_50_clouds"}  # of 360 points, where 50 neighbours are not too many
    assert {f"{name}.{kind}" for name in wanted for kind in ("svg", "png")} <= names
    quick(read_runs([folder])[0], tmp_path)
    for name in ("differences.svg", "loss_latent.svg", "map_pca.svg"):
        assert (tmp_path / "figures" / name).read_bytes() == (folder / "figures" / name).read_bytes()


def test_the_paper_s_triple_is_explained_where_it_is_shown(made):
    text = (made[0] / "report.md").read_text()
    assert "violate the triangle inequality" in text and "squared latent units" in text
    rows = json.loads((made[0] / "report.json").read_text())["findings"]["latents"]["transport"]
    assert {(row["arm"], row["split"]) for row in rows} == {
        (arm, split) for arm in ("text teacher", "random vectors") for split in ("train", "test")
    }
    for row in rows:
        for distance in (row["targets to baseline"], row["baseline to this arm"]):
            assert distance["w2_squared"] == pytest.approx(distance["w2"] ** 2)


# ---- what it refuses to say ----
def test_arms_of_another_test_set_are_shown_and_not_compared(tmp_path):
    runs = make_runs()
    runs[1] = make_run("text teacher", "colearned", 0.1, 0, n=90)
    found = quick(runs, tmp_path, methods=())
    assert found.comparison is None and "not the same test set" in found.headline
    assert "+10.83" not in (tmp_path / "report.md").read_text()


def test_arms_of_other_classes_are_not_compared(tmp_path):
    runs = make_runs()
    runs[2].facts["class_names"] = ["cat", "dog", "fox"]
    found = quick(runs, tmp_path, methods=())
    assert found.comparison is None and "'random vectors' have other classes" in found.headline


def test_one_seed_makes_no_claim(tmp_path):
    found = quick(make_runs(seeds=(0,)), tmp_path, methods=())
    assert "one seed" in found.headline.lower() and "no claim" in found.headline


def test_latents_that_are_not_finite_are_said_and_not_drawn(tmp_path):
    runs = make_runs()
    runs[1].test.latents[3] = np.nan
    quick(runs, tmp_path)
    latents = json.loads((tmp_path / "report.json").read_text())["findings"]["latents"]
    told = " ".join(latents["notes"])
    assert "text teacher" in told and "finite" in told
    table = latents["tables"][0]
    row = dict(zip(table["header"], next(row for row in table["rows"] if row[0] == "text teacher"), strict=True))
    assert row["uniformity"] == row["silhouette"] == "undefined"
    assert not (tmp_path / "figures" / "map_pca.svg").exists()


def test_constant_latents_and_a_single_class_are_said(tmp_path):
    runs = make_runs()
    for run in runs:
        run.test.labels[:] = 0
        run.test.latents[:] = 1.0
    quick(runs, tmp_path, methods=())
    table = json.loads((tmp_path / "report.json").read_text())["findings"]["latents"]["tables"][0]
    by_name = dict(zip(table["header"], zip(*table["rows"], strict=True), strict=True))
    for measure in ("linear probe [%]", "silhouette", "Fisher ratio", "CKA to baseline"):
        assert set(by_name[measure]) <= {"undefined", "-"}, measure


def test_seeds_that_not_every_arm_has_are_left_out_by_name(tmp_path):
    runs = [*make_runs(), make_run("baseline", "baseline", 0.0, 7)]
    found = quick(runs, tmp_path, methods=())
    assert found.comparison.n_seeds == 3 and any("seed 7" in note for note in found.sections[0].notes)


def test_arms_without_a_common_seed_are_not_compared(tmp_path):
    runs = [make_run(arm, kind, gain, seed) for seed, (arm, (kind, gain)) in enumerate(GAINS.items())]
    found = quick(runs, tmp_path, methods=())
    assert found.comparison is None and "no seed in common" in found.headline


# ---- several modalities, groups, other test sets, sweeps ----
def make_multimodal(arm, kind, gain, seed, lacking=0):
    """A run of image and audio: heads, subsets and latents, and the speaker of every sample."""
    run = make_run(arm, kind, gain, seed)
    rng = np.random.default_rng(seed)
    of_modality = {name: run.test.latents + rng.normal(size=run.test.latents.shape) for name in ("image", "audio")}
    of_modality = {name: z_ND.astype(np.float32) for name, z_ND in of_modality.items()}
    of_modality["audio"][:lacking] = np.nan
    run.test.modality_latents = of_modality
    accuracy = run.metrics["accuracy"]
    run.metrics |= {"accuracy_given_image": accuracy - 0.1, "accuracy_given_audio": accuracy - 0.2}
    run.metrics |= {"accuracy_image": 0.5, "accuracy_audio": accuracy / 2}
    run.metrics |= {"accuracy_on_cue_flipped": accuracy / 2, "accuracy_on_cue_followed": 1 - accuracy / 2}
    run.groups = {"speaker": np.array([f"speaker {i % 2}" for i in range(N)])}
    return run


ARMS = {"ce": ("baseline", 0.0), "learned": ("colearned", 0.1), "misaligned": ("null", 0.02)}


@pytest.fixture(scope="module")
def multimodal(tmp_path_factory):
    folder = tmp_path_factory.mktemp("multimodal")
    runs = [make_multimodal(arm, kind, gain, seed) for seed in (0, 1, 2) for arm, (kind, gain) in ARMS.items()]
    for seed in (0, 1, 2):
        alone = make_run("audio alone", "reference", -0.2 + 0.01 * seed, seed)
        alone.metrics |= {"accuracy_on_cue_flipped": 0.4, "accuracy_on_cue_followed": 0.4}
        alone.facts["modality"] = "audio"
        runs.append(alone)
    facts = {**FACTS, "source": "pairing", "shares": ["cue_followed"]}
    report(runs, folder, facts, methods=("pca",))
    return folder, json.loads((folder / "report.json").read_text())["findings"]


def test_each_modality_is_judged_before_the_fused_score(multimodal):
    page, found = (multimodal[0] / "report.md").read_text(), multimodal[1]
    headline, verdict = page.split("**")[1], [line for line in page.split("\n") if line.startswith("- ")][:5]
    assert headline.startswith("'image' by itself: No reliable difference at 3 seeds")
    assert headline.endswith("No joint arm is better than 'audio alone'.")
    assert [line.split(":")[0] for line in verdict] == [
        "- image",
        "- audio",
        "- given image",
        "- given audio",
        "- fused",
    ]
    assert "content helped" in verdict[1]  # against the joint baseline; alone, audio is as good or better
    assert list(found)[:2] == ["by_modality", "arms"]
    overview, *heads = found["by_modality"]["tables"]
    assert overview["header"] == ["arm", "image", "audio", "given image", "given audio", "fused"]
    # 0.4, 0.41 + 0.025 and 0.42 - 0.025 of 120 samples: 48, 52 and 47
    assert ["audio alone", "-", "40.83", "-", "-", "-"] in overview["rows"]
    assert [table["header"][-1] for table in heads] == ["vs null 'misaligned' [pp]", "vs 'audio alone' [pp]"]
    assert (multimodal[0] / "figures" / "differences_audio.png").exists()
    assert [table["header"][2] for table in found["arms"]["tables"]] == ["accuracy [%]"]  # nothing is told twice


def test_what_each_modality_contributes_adds_up_to_the_gain_over_the_most_frequent_class(multimodal):
    shares = multimodal[1]["modalities"]["shapley"]["ce"]
    # v(image) = a - .1, v(audio) = a - .2, v(both) = a, v() = 1/3: image (a - .1 - 1/3 + .2) / 2, audio .1 less
    a = make_run("ce", "baseline", 0.0, 0).metrics["accuracy"]
    assert shares["image"][0] == pytest.approx((a + 0.1 - 1 / 3) / 2)
    assert shares["audio"][0] == pytest.approx((a - 0.1 - 1 / 3) / 2)
    assert any("nats" in note and "'audio' tells" in note for note in multimodal[1]["modalities"]["notes"])


def test_shares_of_samples_that_lack_a_modality_are_not_told(tmp_path):
    runs = [make_multimodal(arm, kind, gain, s, 7) for s in (0, 1) for arm, (kind, gain) in ARMS.items()]
    quick(runs, tmp_path, methods=())
    found = json.loads((tmp_path / "report.json").read_text())["findings"]["modalities"]
    assert "shapley" not in found and not (tmp_path / "figures" / "shapley.svg").exists()
    assert any("7 lack 'audio'" in note for note in found["notes"])


def test_groups_and_classes_have_a_table_each(multimodal):
    found = multimodal[1]["fairness"]
    tables = {table["header"][0]: table for table in found["tables"]}
    assert [row[0] for row in tables["classes"]["rows"]].count("<emu>") == 1
    rows = {row[0]: row for row in tables["groups of speaker"]["rows"]}
    assert set(rows) == {"speaker 0", "speaker 1"} and rows["speaker 0"][1] == "60"
    before = [make_run("ce", "baseline", 0.0, s) for s in (0, 1, 2)]
    of_group = np.mean([(run.predictions == run.labels)[::2].mean() for run in before])
    assert rows["speaker 0"][2] == f"{100 * of_group:.1f}"
    assert (multimodal[0] / "figures" / "changes_by_speaker.svg").exists()


def test_following_a_cue_is_told_and_no_merit(multimodal):
    found = multimodal[1]["tests"]
    assert found["tables"][0]["header"] == ["arm", "test", "cue flipped", "cue followed"]
    told = {note.split("'")[1]: note for note in found["notes"]}
    assert "helped" in told["cue flipped"]
    assert "no score" in told["cue followed"] and "helped" not in told["cue followed"]


def test_a_sweep_is_drawn_and_told_over_its_levels(tmp_path):
    runs = make_runs()
    for seed in (0, 1, 2):
        for level, gain in ((0.0, 0.2), (0.5, 0.1), (1.0, 0.0)):
            run = make_run(f"{level:.0%} mismatched", "null", gain, seed)
            run.facts["sweep"] = {"variable": "share of mismatched pairs", "level": level}
            runs.append(run)
    quick(runs, tmp_path, methods=())
    found = json.loads((tmp_path / "report.json").read_text())["findings"]["sweep"]
    assert found["notes"][0].startswith("falls steadily: -20.00 [-20.00, -20.00] pp from 0 % to 100 % (3 seeds")
    assert (tmp_path / "figures" / "sweep_0.svg").exists()


def test_samples_without_a_target_are_left_out_of_distances_and_maps(tmp_path):
    runs = make_runs()
    for run in runs:
        if run.train.targets is not None:
            run.train.targets[::2] = np.nan  # a budget of half the pairs
    quick(runs, tmp_path)
    found = json.loads((tmp_path / "report.json").read_text())["findings"]["latents"]
    assert {row["arm"] for row in found["transport"]} == {"text teacher", "random vectors"}
    assert (tmp_path / "figures" / "map_pca_clouds.svg").exists()


def test_clouds_of_other_widths_are_said_to_have_no_common_map(tmp_path):
    runs = make_runs()
    for run in runs:
        if run.train.targets is not None:
            run.train.targets = np.concatenate([run.train.targets] * 2, axis=1)
    quick(runs, tmp_path)
    notes = json.loads((tmp_path / "report.json").read_text())["findings"]["latents"]["notes"]
    assert any("their widths differ" in note and "16" in note for note in notes)
    assert not (tmp_path / "figures" / "map_pca_clouds.svg").exists()


# ---- finding and reading runs ----
def test_runs_are_found_below_a_folder_an_arm_and_a_run(made):
    folder, _ = made
    assert len(find_runs([folder])) == 9
    assert len(find_runs([folder / "baseline", folder / "text-teacher"])) == 6
    assert find_runs([folder / "baseline" / "seed-1"]) == [folder / "baseline" / "seed-1"]
    runs, facts = read_runs([folder / "baseline" / "seed-1"])
    assert facts["title"] == "Cats & dogs" and runs[0].seed == 1
    np.testing.assert_array_equal(runs[0].test.latents, make_run("baseline", "baseline", 0.0, 1).test.latents)


def test_two_folders_with_a_baseline_each_keep_both_apart(made, tmp_path):
    shutil.copytree(made[0] / "baseline", tmp_path / "other" / "baseline")
    runs, _ = read_runs([made[0], tmp_path / "other"])
    assert {run.arm: run.kind for run in runs}["other/baseline"] == "reference"


def test_what_an_earlier_attempt_left_does_not_count(tmp_path):
    kept = [run.save(tmp_path / "runs" / run.arm / f"seed-{run.seed}") for run in make_runs(seeds=(0,))]
    make_run("old idea", "colearned", 0.3, 0).save(tmp_path / "runs" / "old" / "seed-0")
    write_experiment(tmp_path / "runs", FACTS, kept)
    assert find_runs([tmp_path / "runs"]) == kept


# ---- the command ----
def test_the_command_prints_the_finding_and_the_files(made, tmp_path, capsys):
    assert main(["report", str(made[0]), "--output_dir", str(tmp_path / "out"), "--projections", "pca"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("The teacher's content helped") and str(tmp_path / "out" / "report.html") in out


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: shutil.rmtree(folder), "there is no folder"),
        (lambda folder: [path.unlink() for path in folder.rglob("run.json")], "no finished run"),
        (lambda folder: (folder / "baseline" / "seed-0" / "run.json").write_text("{"), "is damaged"),
        (lambda folder: (folder / "baseline" / "seed-0" / "arrays.npz").write_bytes(b"PK"), "cannot be read"),
        (lambda folder: (folder / "baseline" / "seed-0" / "arrays.npz").unlink(), "cannot be read"),
    ],
)  # fmt: skip
def test_bad_runs_end_in_one_line_that_names_them(made, tmp_path, capsys, spoil, message):
    folder = tmp_path / "runs"
    shutil.copytree(made[0], folder)
    spoil(folder)
    assert main(["report", str(folder)]) == 2
    error = capsys.readouterr().err
    assert message in error and str(folder) in error and error.count("\n") == 1


def test_a_metric_that_no_run_has_is_named(made, capsys, tmp_path):
    assert main(["report", str(made[0]), "--metric", "bleu", "--output_dir", str(tmp_path)]) == 2
    assert "metric='bleu' was not measured" in capsys.readouterr().err


# ---- the target variance ----
def test_the_target_variance_of_random_prompts_is_the_variance_of_the_bank():
    latents = np.random.default_rng(0).normal(size=(10, 16)).astype(np.float32)
    bank, prompt = TeacherBank.from_latents(latents), RandomPrompt("class {}", num_classes=10)
    variance = target_variance(prompt, bank, np.arange(2000), seed=0)
    assert variance == pytest.approx(latents.var(axis=0).mean(), rel=0.02)
    assert target_variance(prompt, bank, np.arange(2000), seed=0, reduction="sum") == pytest.approx(16 * variance)
    assert target_variance(Paired(np.arange(10)), bank, np.arange(10), seed=0) == 0


def test_runs_that_call_the_target_variance_latent_floor_are_read(made, tmp_path):
    runs = make_runs()
    for run in runs:
        run.facts["latent_floor"] = run.facts.pop("target_variance")
    quick(runs, tmp_path)
    found = [
        json.loads((folder / "report.json").read_text())["findings"]["training"] for folder in (made[0], tmp_path)
    ]
    assert found[0]["target_variance"] == found[1]["target_variance"] == dict.fromkeys(GAINS, 0.9)


# ---- a real browser ----
@pytest.fixture(scope="module")
def browser():
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("no chromium: apt-get install chromium")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.mark.parametrize("size", [(1280, 900), (390, 844)], ids=["desk", "phone"])
def test_the_page_opens_offline_and_shows_the_finding_in_the_first_screen(made, browser, size):
    context = browser.new_context(viewport={"width": size[0], "height": size[1]}, offline=True)
    page, troubles, asked = context.new_page(), [], []
    page.on("console", lambda message: troubles.append(message.text))
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto((made[0] / "report.html").as_uri())
    assert not troubles
    assert [url for url in asked if not url.startswith("data:")] == [(made[0] / "report.html").as_uri()]
    box = page.locator("#headline").bounding_box()
    assert box["y"] + box["height"] < size[1]
    assert page.evaluate("document.documentElement.scrollWidth") <= size[0]  # tables scroll, the page does not
    wide = page.locator(".scroll").first
    edges = {}  # how dark the right edge of a table is, before and after it is moved to its end
    for moved in (0, 1000):
        wide.evaluate("(table, moved) => table.scrollLeft = moved", moved)
        rows = np.asarray(Image.open(io.BytesIO(wide.screenshot())).convert("L"))
        edges[moved] = 255 - float(np.median(rows[:, -3:]))
    overflows = wide.evaluate("table => table.scrollWidth > table.clientWidth + 1")
    assert overflows == (size[0] < 500) and (edges[0] > 40) == overflows and edges[1000] < 5
    assert wide.get_attribute("tabindex") == "0" and wide.get_attribute("role") == "region"
    assert wide.get_attribute("aria-label") == "The arms"
    for image in page.locator("img").all():
        assert image.evaluate("i => i.complete && i.naturalWidth > 100 && i.alt.length > 5")
        assert image.bounding_box()["width"] <= size[0]
    context.close()


def test_the_page_prints_on_paper_without_cutting_tables(made, browser, tmp_path):
    page = browser.new_page()
    page.goto((made[0] / "report.html").as_uri())
    page.emulate_media(media="print")
    page.set_viewport_size({"width": 718, "height": 1000})  # A4 less its margins
    assert page.evaluate("[...document.querySelectorAll('table')].every(t => t.getBoundingClientRect().right <= 718)")
    assert not page.locator("nav").is_visible()
    printed = page.pdf(format="A4")
    assert printed.startswith(b"%PDF") and len(printed) > 20_000
    page.close()
