"""Downloads from a hub that fails in every way a network can."""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import huggingface_hub.constants
import pytest
from checkpoints import save_sd
from hub_server import Hub, running_hub

from graphflow.errors import GraphflowError, MissingError
from graphflow.models import files
from graphflow.models.files import local_folder, missing, model_files
from graphflow.models.hub import RemoteFile, pull
from graphflow.models.refs import ModelRef
from graphflow.models.verify import remove, verify

NAME = "owner/name"
WEIGHTS = "vae/diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = save_sd(tmp_path_factory.mktemp("sd"))
    (folder / "README.md").write_text("what nobody needs")
    (folder / "vae" / "diffusion_pytorch_model.fp16.safetensors").write_bytes(b"a variant")
    (folder / "vae" / "diffusion_pytorch_model.bin").write_bytes(b"a pickle")
    return folder


@pytest.fixture
def hub(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with running_hub() as running:
        running.add(NAME, saved)
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        monkeypatch.delenv("HF_HUB_CACHE", raising=False)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(time, "sleep", lambda seconds: None)  # the library's pauses between attempts
        yield running


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """What has come of a chunk when the connection breaks is lost."""
    monkeypatch.setattr(huggingface_hub.constants, "DOWNLOAD_CHUNK_SIZE", 1000)


def vae(hub: Hub, revision: str | None = "", name: str = NAME) -> ModelRef:
    pinned = hub.repos[NAME].commit if revision == "" else revision
    return ModelRef("vae", "diffusers.vae", "sd", hub=name, revision=pinned, part="vae")


class Counted:
    """A `Progress` that adds up."""

    def __init__(self) -> None:
        self.files, self.total, self.bytes, self.done = 0, 0, 0, []

    def begin(self, files: int, total: int) -> None:
        self.files, self.total = files, total

    def advance(self, count: int) -> None:
        self.bytes += count

    def finish(self, file: RemoteFile) -> None:
        self.done.append(file.name)


def assert_complete(hub: Hub, ref: ModelRef) -> None:
    folder = local_folder(ref)
    assert folder is not None
    found = {p.relative_to(folder).as_posix(): p.read_bytes() for p in model_files(ref, folder)}
    assert found == {name: hub.repos[NAME].files[name] for name in ("vae/config.json", WEIGHTS)}
    assert not list(folder.parents[1].rglob("*.incomplete"))


def test_only_the_files_that_the_loader_reads_are_fetched(hub: Hub) -> None:
    progress = Counted()
    (folder,) = pull([vae(hub)], progress)
    assert_complete(hub, vae(hub))
    names = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    assert (
        names == ["vae/config.json", WEIGHTS] == sorted({path for _, path, _ in hub.requests}) == sorted(progress.done)
    )
    assert progress.bytes == progress.total == sum(len(hub.repos[NAME].files[name]) for name in names)
    assert progress.files == 2


def test_what_is_here_is_not_fetched_again_and_models_share_a_listing(hub: Hub) -> None:
    pull([vae(hub)])
    hub.requests.clear()
    denoiser = ModelRef("denoiser", "diffusers.unet", "sd", hub=NAME, revision=hub.repos[NAME].commit, part="unet")
    progress = Counted()
    (folder,) = pull([vae(hub), denoiser], progress)
    fetched = sorted(path for _, path, _ in hub.requests)
    assert fetched == [
        "scheduler/scheduler_config.json",
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
    ]
    assert progress.bytes == progress.total
    assert missing({"vae": vae(hub), "denoiser": denoiser}) == []
    assert folder == local_folder(denoiser)


def test_the_hub_s_own_library_finds_what_was_pulled(hub: Hub) -> None:
    from huggingface_hub import hf_hub_download, scan_cache_dir

    (folder,) = pull([vae(hub, None)])
    cache = folder.parents[2]
    path = hf_hub_download(NAME, WEIGHTS, revision="main", cache_dir=cache, local_files_only=True)
    assert Path(path) == folder / WEIGHTS
    (repo,) = scan_cache_dir(cache).repos
    assert (repo.repo_id, repo.nb_files) == (NAME, 2)
    hub.requests.clear()
    hf_hub_download(NAME, WEIGHTS, revision=hub.repos[NAME].commit, cache_dir=cache, endpoint=hub.url)
    assert hub.requests == []


def test_a_cut_connection_goes_on_where_it_was(hub: Hub, small_chunks: None) -> None:
    hub.cuts[WEIGHTS] = [1000, 5000]
    progress = Counted()
    pull([vae(hub)], progress)
    assert hub.ranges(WEIGHTS) == ["", "bytes=1000-", "bytes=6000-"]
    assert_complete(hub, vae(hub))
    assert progress.bytes == progress.total


def test_a_killed_download_goes_on_in_the_next_process(hub: Hub, small_chunks: None) -> None:
    ref, data = vae(hub), hub.repos[NAME].files[WEIGHTS]
    hub.cuts[WEIGHTS] = [7000] * 1000
    hub.cuts[WEIGHTS][1:] = [0] * 1000
    with pytest.raises(MissingError, match=f"{WEIGHTS} can't be downloaded from .* Run the command again"):
        pull([ref])
    folder = local_folder(ref)
    assert folder is None or not (folder / WEIGHTS).exists(), "half a file has no name"
    hub.cuts.clear()
    hub.requests.clear()
    progress = Counted()
    pull([ref], progress)
    assert hub.ranges(WEIGHTS) == ["bytes=7000-"]
    assert_complete(hub, ref)
    assert progress.bytes == progress.total == len(data) + len(hub.repos[NAME].files["vae/config.json"])


def test_two_pulls_at_once_fetch_a_file_once(hub: Hub) -> None:
    with ThreadPoolExecutor(4) as threads:
        folders = [done.result() for done in [threads.submit(pull, [vae(hub)]) for _ in range(4)]]
    assert hub.ranges(WEIGHTS) == [""]
    assert folders[0] == folders[3]
    assert_complete(hub, vae(hub))


def test_a_server_without_ranges_sends_everything_again(hub: Hub, small_chunks: None) -> None:
    hub.cuts[WEIGHTS], hub.no_ranges = [1000], True
    progress = Counted()
    pull([vae(hub)], progress)
    assert_complete(hub, vae(hub))
    assert progress.bytes == progress.total


def test_a_damaged_file_is_fetched_again(hub: Hub) -> None:
    hub.damaged = {WEIGHTS: 1, "vae/config.json": 1}
    progress = Counted()
    pull([vae(hub)], progress)
    assert hub.ranges(WEIGHTS) == ["", ""]
    assert_complete(hub, vae(hub))
    assert progress.bytes == progress.total


def test_a_file_that_stays_damaged_is_named_with_both_digests(hub: Hub) -> None:
    hub.damaged[WEIGHTS] = 5
    data = hub.repos[NAME].files[WEIGHTS]
    wrong = hashlib.sha256(bytes([data[0] ^ 1]) + data[1:]).hexdigest()
    with pytest.raises(GraphflowError) as caught:
        pull([vae(hub)])
    message = str(caught.value)
    assert WEIGHTS in message
    assert wrong in message
    assert hashlib.sha256(data).hexdigest() in message
    assert missing({"vae": vae(hub)}) != []


@pytest.mark.parametrize(
    ("revision", "name", "says"),
    [
        ("f" * 40, NAME, "owner/name has no revision ffff"),
        ("v2", NAME, "owner/name has no revision v2"),
        ("../../x", NAME, "owner/name has no revision ../../x"),
        (None, "owner/other", "owner/other does not exist, or is private: hf auth login"),
    ],
)
def test_what_the_hub_does_not_have(hub: Hub, revision: str | None, name: str, says: str) -> None:
    with pytest.raises(MissingError, match=says):
        pull([vae(hub, revision, name)])


def test_a_file_that_the_hub_does_not_have(hub: Hub) -> None:
    del hub.repos[NAME].files[WEIGHTS]
    with pytest.raises(MissingError, match=r"owner/name has no file vae/diffusion_pytorch_model\*.safetensors"):
        pull([vae(hub)])
    assert hub.requests == [], "nothing is fetched in vain"


def test_a_file_that_is_too_large_for_http(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "MAX_HTTP_DOWNLOAD_SIZE", 10_000)
    with pytest.raises(GraphflowError, match=f"is larger than the hub sends by HTTP: hf download {NAME} {WEIGHTS}"):
        pull([vae(hub)])


def test_a_gated_repository(hub: Hub) -> None:
    hub.gated.add(NAME)
    with pytest.raises(MissingError, match=r"is gated: accept its terms at http://127.*/owner/name, then log in"):
        pull([vae(hub)])


@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_hub_in_trouble(hub: Hub, status: int) -> None:
    hub.status = status
    with pytest.raises(MissingError, match=f"owner/name can't be downloaded: http://127.* answers {status}"):
        pull([vae(hub)])


def test_no_hub_at_all(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(MissingError, match="owner/name can't be downloaded from http://127.0.0.1:9"):
        pull([vae(hub)])


def test_a_token_stays_with_the_hub(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    pull([vae(hub)])
    assert any("/resolve/" in path for path in hub.authorised)
    assert not any(path.startswith("/cdn/") for path in hub.authorised)


def test_a_full_disk_is_noticed_before_anything_is_fetched(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(100, 90, 10))
    with pytest.raises(GraphflowError, match=r"KiB to download, but .*hub has 10 B free"):
        pull([vae(hub)])
    assert hub.requests == []


@pytest.mark.parametrize("name", ["../evil.json", "/etc/evil.json", "vae/../../evil.json", "C:/evil.json", "a\\..\\b"])
def test_a_hub_can_not_write_elsewhere(name: str) -> None:
    with pytest.raises(GraphflowError, match="lists a file that can't be"):
        RemoteFile(name, 3, "0" * 40)
    with pytest.raises(GraphflowError, match="lists a file that can't be"):
        RemoteFile("vae/config.json", 3, "../../../x")


def test_verify_names_damaged_files_and_repairs_by_pulling(hub: Hub) -> None:
    ref = vae(hub)
    (folder,) = pull([ref])
    sound = verify(ref)
    assert (sound.files, sound.compared, sound.damages) == (2, 2, [])
    assert sound.bytes == sum(len(hub.repos[NAME].files[name]) for name in ("vae/config.json", WEIGHTS))
    real = (folder / WEIGHTS).resolve()
    data = real.read_bytes()
    real.write_bytes(bytes([data[0] ^ 1]) + data[1:])
    (damage,) = verify(ref).damages
    assert damage.name == WEIGHTS
    assert hashlib.sha256(real.read_bytes()).hexdigest() in str(damage)
    assert real.name in str(damage)
    remove(damage)
    pull([ref])
    assert verify(ref).damages == []
    assert_complete(hub, ref)


def test_local_files_are_checked_for_their_form(saved: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(saved, tmp_path / "copy"))
    ref = ModelRef("vae", "diffusers.vae", "sd", path=folder, part="vae")
    assert (verify(ref).compared, verify(ref).damages) == (0, [])
    weights = folder / WEIGHTS
    weights.write_bytes(weights.read_bytes()[:-100])
    (damage,) = verify(ref).damages
    assert "its header says" in str(damage)
    weights.write_bytes(b"nothing of the kind")
    assert "it is no safetensors file" in str(verify(ref).damages[0])


def test_without_symbolic_links_files_lie_in_the_snapshot(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise OSError("a required privilege is not held")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    (folder,) = pull([vae(hub)])
    assert not (folder / WEIGHTS).is_symlink()
    hub.requests.clear()
    pull([vae(hub)])
    assert hub.requests == []
    assert verify(vae(hub)).damages == []


def test_names_of_patterns_are_readable(hub: Hub) -> None:
    absent = files.absent_files(vae(hub))
    assert absent == ["vae/config.json", "vae/diffusion_pytorch_model*.safetensors"]
    pull([vae(hub)])
    assert files.absent_files(vae(hub)) == []
