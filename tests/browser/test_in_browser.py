"""The page "In your browser", opened from a disk and without a network, beside the package."""

import base64
import json
import re
from types import SimpleNamespace

import numpy as np
import pytest
from helpers import site_checks
from in_browser import MODULES, page_body, write_parts
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from site_runtime import read_runtime

from patchcore_helpers import PatchCore, k_center_greedy, load_category
from patchcore_helpers.app.cli import main
from patchcore_helpers.core.bank_file import digest_of
from patchcore_helpers.core.coreset import k_center_greedy_reference
from patchcore_helpers.core.extractor import resized
from patchcore_helpers.core.metrics import image_auroc
from patchcore_helpers.core.smoothing import resize_and_smooth
from patchcore_helpers.core.threshold import conformal_threshold
from patchcore_helpers.errors import InputError
from patchcore_helpers.files import sha256

STYLE = MODULES.parent / "static" / "in_browser.css"
READY = "document.querySelector('#bench').dataset.state === 'ready'"
SECONDS = 300  # a busy machine
CALL = """async ([module, name, given]) => {
    const found = await import(`/${module}.js`);
    const isBytes = (value) => value?.bytes !== undefined;
    const revived = given.map((value) => {
        if (!isBytes(value)) return value;
        const bytes = Uint8Array.from(atob(value.bytes), (letter) => letter.charCodeAt(0));
        return value.kind === "float32" ? new Float32Array(bytes.buffer) : bytes;
    });
    let answer = found[name](...revived);
    if (typeof answer.next === "function") {
        let step = answer.next();
        while (!step.done) step = answer.next();
        answer = step.value;
    }
    return ArrayBuffer.isView(answer) ? [...answer] : answer;
}"""


class Bench:
    """The page, driven as a person does it."""

    def __init__(self, chromium, path, width=1200):
        self.visit = site_checks.Visit(chromium, width)
        self.page = self.visit.open(path)
        self.page.set_default_timeout(1000 * SECONDS)

    def find(self, name):
        return self.page.locator(f"#bench-{name}")

    def give(self, name, files):
        """Choose files in a field, and wait until they have been dealt with."""
        self.find(name).set_input_files([str(file) for file in files])
        self.wait()

    def press(self, name):
        self.find(name).click()
        self.wait()

    def wait(self):
        self.page.wait_for_function(READY)

    def learn(self, files, held_out=0):
        self.give("good-files", files)
        self.find("held-out").fill(str(held_out))
        self.press("learn")

    def save(self, path):
        with self.page.expect_download() as download:
            self.press("save")
        download.value.save_as(path)
        return path

    @property
    def scores(self):
        """The score of each judged picture, by its name."""
        items = self.find("results").locator("li").all()
        names = [item.locator("p").inner_text().partition(":")[0] for item in items]
        scores = [float(item.get_attribute("data-score")) for item in items]
        return dict(zip(names, scores, strict=True))

    @property
    def status(self):
        return self.find("status").inner_text()

    @property
    def problems(self):
        return self.find("problems").inner_text().splitlines()


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """The page in a folder, as the site has it, but without the theme."""
    try:
        runtime = read_runtime()
    except InputError as error:
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("site")
    write_parts(folder / "parts", runtime)
    head = '<!doctype html><html lang="en"><meta charset="utf-8"><title>In your browser</title>'
    viewport = '<meta name="viewport" content="width=device-width">'
    style = f"<style>{STYLE.read_text('utf-8')}</style>"
    body = f"<body>{page_body('parts')}</body></html>"
    (folder / "index.html").write_text(head + viewport + style + body, "utf-8")
    return folder


@pytest.fixture
def bench(chromium, site):
    bench = Bench(chromium, site / "index.html")
    yield bench
    asked, complaints = bench.visit.asked, bench.visit.complaints
    bench.visit.close()
    assert (asked, complaints) == ([], [])


@pytest.fixture
def javascript(chromium):
    """Call a function of a module of the page."""
    page = chromium.new_page()
    page.set_default_timeout(1000 * SECONDS)

    def serve(route):
        name = route.request.url.rpartition("/")[2]
        if name:
            route.fulfill(path=MODULES / name, content_type="text/javascript")
        else:
            route.fulfill(body="<!doctype html>", content_type="text/html")

    page.route("**/*", serve)
    page.goto("http://page.test/")
    yield lambda module, name, *given: page.evaluate(CALL, [module, name, list(given)])
    page.close()


def as_bytes(array):
    """An array for `CALL`."""
    array = np.ascontiguousarray(array)
    text = base64.b64encode(array.tobytes()).decode()
    return {"bytes": text, "kind": str(array.dtype)}


@pytest.fixture(scope="session")
def cells():
    """Solar cells: 20 to learn from, 20 good ones and 20 defective ones to judge."""
    category = load_category("elpv/mono")
    good = [sample.image for sample in category.test if sample.label == 0]
    defective = [sample.image for sample in category.test if sample.label == 1]
    learn = [sample.image for sample in category.train[:20]]
    step = len(defective) // 20
    return SimpleNamespace(learn=learn, judge=good[:20] + defective[: 20 * step : step])


# --- the whole page ---


def test_the_page_scores_as_the_package_does(bench, cells, tmp_path):
    bench.learn(cells.learn)
    bench.give("judge-files", cells.judge)
    model = PatchCore.load(bench.save(tmp_path / "bank.safetensors"))
    theirs = np.array([bench.scores[path.name] for path in cells.judge])
    ours = model.anomaly_scores(cells.judge)
    assert theirs == pytest.approx(ours, rel=1e-3)
    labels = [0] * 20 + [1] * 20
    assert image_auroc(labels, theirs) == image_auroc(labels, ours) > 0.7
    features = model.extractor_.extract(cells.learn).reshape(-1, 152)
    chosen = k_center_greedy(features, len(model.bank_), first=0).indices
    assert len(chosen) == 205
    assert features[chosen] == pytest.approx(model.bank_.vectors_, abs=1e-3)


def test_a_saved_bank_is_read_by_predict(bench, cells, tmp_path, capsys):
    bench.learn(cells.learn[:4], held_out=1)
    bench.give("judge-files", cells.judge[-2:])
    path = bench.save(tmp_path / "bank.safetensors")
    assert main(["predict", str(path), *map(str, cells.judge[-2:]), "--json"]) == 0
    verdicts = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [verdict["score"] for verdict in verdicts] == pytest.approx(
        [bench.scores[path.name] for path in cells.judge[-2:]], rel=1e-3
    )
    model = PatchCore.load(path)
    held_out = model.anomaly_scores(cells.learn[2:3])[0]
    assert model.threshold_ == pytest.approx(float(held_out), rel=1e-3)


def test_a_bank_of_the_package_is_opened(bench, cells, tmp_path):
    model = PatchCore(coreset_ratio=0.02, random_state=3).fit(cells.learn[:3])
    model.threshold_ = 31.25
    model.save(tmp_path / "bank.safetensors")
    bench.give("open", [tmp_path / "bank.safetensors"])
    bench.give("judge-files", cells.judge[-2:])
    theirs = [bench.scores[path.name] for path in cells.judge[-2:]]
    assert theirs == pytest.approx(model.anomaly_scores(cells.judge[-2:]).tolist(), rel=1e-3)
    assert bench.find("threshold-out").inner_text() == "31.25"


def test_a_bank_that_knows_its_images_is_opened(bench, cells, tmp_path):
    """Format 3: further arrays and a text about images, which the page reads past."""
    bench.learn(cells.learn[:1])
    path = bench.save(tmp_path / "bank.safetensors")
    with safe_open(path, "numpy") as file:
        texts = file.metadata()
    names = np.frombuffer(b"one.png\n", np.uint8)
    arrays = {"image_names": names, "origins": np.arange(10), **load_file(path)}
    texts |= {"format": "patchcore-helpers memory bank 3", "images": "{}"}
    texts["digest"] = digest_of(arrays, texts["bank"], texts["detector"], texts["images"])
    save_file(arrays, tmp_path / "newer.safetensors", texts)
    bench.give("open", [tmp_path / "newer.safetensors"])
    assert bench.status.startswith("Opened newer.safetensors: 10 rows.")
    arrays["roi"] = np.ones((2, 2), np.uint8)
    texts["digest"] = digest_of(arrays, texts["bank"], texts["detector"], texts["images"])
    save_file(arrays, tmp_path / "region.safetensors", texts)
    bench.give("open", [tmp_path / "region.safetensors"])
    assert "it holds roi, which this page does not know" in bench.problems[0]


def test_the_sliders_answer(bench, cells, tmp_path):
    bench.learn(cells.learn[:4], held_out=1)
    bench.give("judge-files", cells.judge[-1:])
    before = bench.scores
    bench.find("ratio").press("Home")
    assert bench.find("ratio-out").inner_text() == "0.1 %, 3 rows"
    name = cells.judge[-1].name
    assert bench.scores[name] > before[name]
    smaller = PatchCore.load(bench.save(tmp_path / "bank.safetensors"))
    assert bench.scores[name] == pytest.approx(
        smaller.anomaly_scores(cells.judge[-1:])[0], rel=1e-3
    )
    verdict = bench.find("results").locator("li p")
    bench.find("threshold").press("End")
    assert verdict.inner_text().endswith("looks good")
    bench.find("threshold").press("Home")
    assert verdict.inner_text().endswith("suspicious")


def test_the_nearest_normal_patch_is_shown_by_keys(bench, cells, tmp_path):
    bench.learn(cells.learn[:2])
    bench.give("judge-files", cells.judge[-1:])
    canvas = bench.find("results").locator("canvas").last
    assert bench.find("lens-words").inner_text().startswith("Point at a picture")
    canvas.focus()
    words = bench.find("lens-words").inner_text()
    model = PatchCore.load(bench.save(tmp_path / "bank.safetensors"))
    scores = model.patch_scores(cells.judge[-1:])[0]
    row = model.nearest_rows(cells.judge[-1:])[0].flat[scores.argmax()]
    assert words.startswith(f"Distance {scores.max():.2f} to row {row} of the memory bank, from ")
    canvas.press("ArrowUp")
    assert bench.find("lens-words").inner_text() != words


def test_the_solar_cells_of_the_page(chromium, site):
    phone = Bench(chromium, site / "index.html", width=390)
    phone.press("samples")  # are learned, and others judged
    phone.page.wait_for_function("document.querySelectorAll('#bench-results li').length === 12")
    phone.wait()
    assert phone.problems == []
    assert "suspicious" in phone.find("results").inner_text()
    phone.page.wait_for_function("scrollY > 0")  # the results are in sight
    scores = list(phone.scores.values())
    assert scores == sorted(scores, reverse=True)
    n_alarms = phone.find("results").locator("li.is-alarm").count()
    assert phone.status == f"12 of 12 pictures judged. Above the threshold: {n_alarms} of 12."
    assert site_checks.sideways(phone.page) <= 0
    assert site_checks.accessibility(phone.page) == []
    phone.visit.close()
    assert phone.visit.complaints == []


# --- pictures that are not as they should be ---


@pytest.fixture
def odd_pictures(tmp_path, photo):
    """Pictures that a person might drop, good and bad ones, by name."""
    small = Image.fromarray(photo(1))

    def write(name, image, **options):
        image.save(tmp_path / name, **options)
        return tmp_path / name

    turned = Image.Exif()
    turned[0x0112] = 6  # to be turned by 90 degrees
    (tmp_path / "text.png").write_text("no picture")
    transparent = small.convert("RGBA")
    transparent.putalpha(Image.linear_gradient("L").resize(small.size))
    return {
        "small.png": write("small.png", small),
        "wide.png": write("wide.png", small.resize((700, 90))),
        "gray.png": write("gray.png", small.convert("L")),
        "opaque.png": write("opaque.png", small.convert("RGBA")),
        "turned.jpg": write("turned.jpg", small.resize((90, 60)), exif=turned, quality=95),
        "large.png": write("large.png", small.resize((6000, 5000))),
        "text.png": tmp_path / "text.png",
        "transparent.png": write("transparent.png", transparent),
    }


def test_odd_pictures_are_scored_or_told(bench, photo, odd_pictures, tmp_path):
    normal = tmp_path / "normal.png"
    Image.fromarray(photo(0)).save(normal)
    bench.learn([normal])
    bench.give("judge-files", odd_pictures.values())
    hint = "replace or remove it (a browser reads PNG, JPEG, WebP, GIF and BMP)"
    assert bench.problems == [
        f"text.png: cannot be read as a picture; {hint}",
        "transparent.png: has transparent pixels; save it without transparency",
    ]
    assert bench.status == "6 of 8 pictures judged."
    model = PatchCore.load(bench.save(tmp_path / "bank.safetensors"))
    for name, score in bench.scores.items():
        ours = model.anomaly_scores([odd_pictures[name]])[0]
        assert score == pytest.approx(ours, rel=1e-3), name


DROP = """async (zone, names) => {
    const data = new DataTransfer();
    for (const [name, text] of names) {
        const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
        data.items.add(new File([bytes], name));
    }
    zone.dispatchEvent(new DragEvent("drop", {dataTransfer: data, cancelable: true}));
}"""


def test_pictures_are_dropped(bench, odd_pictures):
    names = ["small.png", "wide.png"]
    files = [(name, base64.b64encode(odd_pictures[name].read_bytes()).decode()) for name in names]
    bench.find("good-drop").evaluate(DROP, files)
    bench.wait()
    assert bench.status == "2 of 2 pictures read, 2 good ones in all. Now learn."
    bench.press("learn")
    bench.find("judge-drop").evaluate(DROP, files[1:])
    bench.wait()
    assert list(bench.scores) == ["wide.png"]


def test_without_a_good_picture_nothing_is_learned(bench, odd_pictures):
    bench.give("good-files", [odd_pictures["text.png"]])
    assert bench.problems[0].startswith("text.png: cannot be read")
    assert bench.find("learn").is_disabled()
    bench.give("judge-files", [odd_pictures["small.png"]])
    assert bench.problems == ["Nothing has been learned yet: learn good pictures first."]


def test_a_bad_bank_is_refused_and_the_old_one_stays(bench, photo, tmp_path):
    picture = tmp_path / "normal.png"
    Image.fromarray(photo(0)).save(picture)
    bench.learn([picture])
    content = bench.save(tmp_path / "bank.safetensors").read_bytes()
    other = PatchCore(image_size=64).fit([photo(0)])
    other.save(tmp_path / "other.safetensors")
    (tmp_path / "damaged.safetensors").write_bytes(content[:-1] + b"\x55")
    (tmp_path / "short.safetensors").write_bytes(content[:100])
    (tmp_path / "text.safetensors").write_text("no bank")
    reasons = {
        "other": "image_size is 64, and 256 here",
        "damaged": "it is damaged: its checksum is another",
        "short": "its header's size",
        "text": "its size",
    }
    for name, reason in reasons.items():
        bench.give("open", [tmp_path / f"{name}.safetensors"])
        head = f"{name}.safetensors: not a memory bank for this page"
        assert bench.problems == [f"{head} ({reason})"]
    bench.give("judge-files", [picture])
    assert bench.status.startswith("1 of 1 pictures judged.")


# --- each function beside its twin ---


@pytest.mark.parametrize("size", [(300, 300), (64, 64), (256, 256), (517, 91), (1000, 3)])
def test_pictures_are_resized_as_pillow_does_it(javascript, size):
    height, width = size
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    rgba = np.dstack([pixels, np.full(size, 255, np.uint8)])
    columns = javascript("resize", "resizingWeights", width, 256)
    rows = javascript("resize", "resizingWeights", height, 256)
    narrow = javascript("resize", "resizedWidth", as_bytes(rgba), width, height, columns)
    narrow = as_bytes(np.array(narrow, np.uint8))
    theirs = javascript("resize", "resizedHeight", narrow, 256, rows)
    ours = resized(Image.fromarray(pixels), (256, 256))
    assert (np.array(theirs).reshape(256, 256, 3) == ours).all()


def test_the_picks_are_those_of_the_definition(javascript, cells):
    features = PatchCore().new_extractor().extract(cells.learn[:3]).reshape(-1, 152)
    theirs = javascript("coreset", "kCenterGreedy", as_bytes(features), 152, 307)
    ours = k_center_greedy_reference(features.astype(float), 307)
    assert theirs["indices"] == ours.indices.tolist()
    assert theirs["radii"][:-1] == pytest.approx(ours.radii[:-1].tolist(), rel=1e-6)
    fast = k_center_greedy(features, 307, projection=None, first=0)
    assert theirs["indices"] == fast.indices.tolist()


def test_no_center_in_reach_is_left_out(javascript):
    """In a plane, where the triangle inequality spares most comparisons."""
    points = np.random.default_rng(0).random((3000, 2), np.float32)
    theirs = javascript("coreset", "kCenterGreedy", as_bytes(points), 2, 1000)
    assert (
        theirs["indices"] == k_center_greedy_reference(points.astype(float), 1000).indices.tolist()
    )


def test_equal_patches_are_chosen_once(javascript):
    vectors = np.float32([[1, 1], [0, 0], [1, 1], [5, 5]])
    theirs = javascript("coreset", "kCenterGreedy", as_bytes(vectors), 2, 4)
    assert theirs["indices"] == k_center_greedy(vectors, 4, first=0).indices.tolist()


def test_a_map_is_smoothed_as_in_the_package(javascript):
    import torch

    grid = np.random.default_rng(0).random((32, 32), np.float32)
    matrix = javascript("map", "smoothingMatrix", 32, 256, 4)
    theirs = javascript("map", "anomalyMap", as_bytes(grid), 32, matrix)
    ours = resize_and_smooth(torch.from_numpy(grid)[None], (256, 256), 4.0)[0].numpy()
    assert np.reshape(theirs, (256, 256)) == pytest.approx(ours, abs=1e-5)


@pytest.mark.parametrize(("count", "rate"), [(19, 0.05), (40, 0.05), (3, 0.25), (5, 1 / 6)])
def test_the_threshold_is_the_conformal_one(javascript, count, rate):
    scores = np.random.default_rng(count).random(count)
    theirs = javascript("bank", "conformalThreshold", scores.tolist(), rate)
    assert theirs == conformal_threshold(scores, rate)


@pytest.mark.parametrize(("ratio", "n"), [(0.01, 250), (0.01, 350), (0.001, 100), (0.1, 1024)])
def test_a_ratio_is_rounded_as_python_does_it(javascript, ratio, n):
    assert javascript("bank", "keptCount", ratio, n) == max(1, round(ratio * n))


@pytest.mark.parametrize("length", [0, 1, 55, 56, 63, 64, 65, 1000])
def test_sha256(javascript, length):
    content = np.random.default_rng(length).bytes(length)
    framed = f"{length}:".encode() + content
    theirs = javascript("sha256", "sha256", as_bytes(np.frombuffer(framed, np.uint8)))
    assert theirs == sha256(content)


def test_every_twin_is_shown():
    from in_browser import TWINS, twins

    text = twins()
    assert len(re.findall("```javascript\n", text)) == len(re.findall("```python\n", text)) == 5
    assert len(TWINS) == 5
