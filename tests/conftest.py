"""Fixtures that several test files use, and how pytest-xdist's processes share the machine."""

import ctypes
import gc
import os
import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.golden_values import Golden

ROOT = Path(__file__).resolve().parent.parent
PROCESSES = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
if PROCESSES > 1:  # each has its share of the cores, before it imports PyTorch: threads that wait for a core spin
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // PROCESSES)))
# They begin first, in this order, so that all processes end at about the same time.
LONGEST = (
    "test_torch_distributed", "test_export", "test_resume", "test_rehearsal", "test_training", "test_contract",
    "test_torch_training", "test_torch_network", "test_package",
)  # fmt: skip
for name in {name for name in os.environ if name.startswith("MASKFLOWNET_")} - {"MASKFLOWNET_FUZZ"}:
    del os.environ[name]  # tests have data sets and limits of their own
KEPT = 4 * 2**30  # B
# Files that import what may be missing: others shall fail where they do.
IMPORTERS = {
    "mxnet": "network/test_* */test_params.py */test_torch_module.py */test_torch_operators.py "
    "training/test_training.py",
    "torch": "engine/test_torch_* engine/kernels/test_* scenes/test_render.py",
}
collect_ignore_glob = [path for name, paths in IMPORTERS.items() if not find_spec(name) for path in paths.split()]
if find_spec("triton") and find_spec("torch"):
    import torch

    if not torch.cuda.is_available():  # Triton reads this when it is first imported: its kernels are interpreted then
        os.environ["TRITON_INTERPRET"] = "1"


def pytest_report_header():
    return [f"left out, as MXNet or PyTorch is missing: {' '.join(collect_ignore_glob)}"] if collect_ignore_glob else []


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of golden values and real pairs beside the checkout; tests skip without it."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip("the folder of shared data is not beside this checkout")
    return folder


@pytest.fixture(scope="module")
def chromium():
    """Headless Chromium, from the environment's CHROMIUM or on the PATH, with a camera that shows a moving picture."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if found is None:
        pytest.skip("no Chromium is found: install it, or name it in the variable CHROMIUM")
    arguments = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        arguments.append("--no-sandbox")  # which refuses to run as root
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=found, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium, address):
    """Open the page at the module's `address`; at the end there was no error, and no request to elsewhere."""
    contexts, troubles = [], []

    def open_page(width=1280, **options):
        phone = width < 500
        size = {"width": width, "height": 844}
        context = chromium.new_context(viewport=size, is_mobile=phone, has_touch=phone, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.on("console", lambda message: message.type == "error" and troubles.append(message.text))
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("dialog", lambda dialog: troubles.append(dialog.message))
        page.on("response", lambda answer: answer.status >= 400 and troubles.append(answer.url))
        local = (address, "data:", "blob:")
        page.on("request", lambda request: request.url.startswith(local) or troubles.append(request.url))
        page.goto(address)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not troubles


@pytest.fixture(scope="session")
def golden() -> Golden:
    return Golden(ROOT / "tests" / "golden")


def pytest_configure(config):
    config.option.loadscopereorder = False  # pytest-xdist's order, the file with the most tests first


def pytest_collection_modifyitems(items):
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.stem, len(places)))


@pytest.fixture(scope="module", autouse=True)
def memory_is_given_back():
    """What a file's networks took: glibc keeps it, many gigabytes in a whole run."""
    yield
    statm, trim = Path("/proc/self/statm"), getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim and statm.exists() and int(statm.read_text().split()[1]) * os.sysconf("SC_PAGESIZE") > KEPT:
        gc.collect()
        trim(0)


@pytest.fixture
def torch_threads():
    """A function that sets PyTorch's number of threads until the test is over."""
    import torch  # noqa: PLC0415 - by those who need it

    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def chairs(tmp_path_factory):
    """A FlyingChairs of seven pairs."""
    from maskflownet.reader.flying import Chairs  # noqa: PLC0415

    from tests.trees import make_chairs  # noqa: PLC0415

    return Chairs(make_chairs(tmp_path_factory.mktemp("chairs"), train=7, val=0))


@pytest.fixture(scope="session")
def random_checkpoints(golden, tmp_path_factory) -> dict[str, Path]:
    """A checkpoint without record, filled with small random numbers, of each network by name."""
    from maskflownet.checkpoints.params import params_bytes  # noqa: PLC0415

    folder = tmp_path_factory.mktemp("checkpoints")
    paths = {network: folder / f"{network}.params" for network in golden.shapes}
    for network, path in paths.items():
        path.write_bytes(params_bytes(golden.parameters(network), ""))
    return paths
