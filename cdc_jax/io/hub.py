"""Names on the hub, hf://OWNER/REPO[@REVISION][/PATH], accessed through huggingface_hub.

The library provides the cache, offline mode, tokens and progress bars, and the variables that configure them: HF_HOME,
HF_HUB_OFFLINE, HF_TOKEN, HF_ENDPOINT. The library checks the size of each download. Here, each file is also compared
with its hash on the hub, which is its name in the library's cache.
"""

from __future__ import annotations

import contextlib
import fnmatch
import glob
import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cdc_jax.errors import BundleError, CdcError, CheckpointError, reason_of
from cdc_jax.version import __version__

SCHEME = "hf://"
_NAME = re.compile(
    r"hf://(?P<repository>[\w.-]+/[\w.-]+)(?:@(?P<revision>refs/(?:pr|convert)/[^/@]+|[^/@]+))?(?P<path>(?:/[^/]+)*)/?"
)
_TAGS = ["image-compression", "lossy-compression", "diffusion", "jax"]
_LIBRARY = {"library_name": "cdc_jax", "library_version": __version__}


@dataclass(frozen=True)
class HubName:
    """A location on the hub.

    Attributes:
      repository: "OWNER/REPO".
      revision: a branch, a tag or a commit; None: the main branch.
      path: the path of a folder or file in the repository; "": the repository itself.
    """

    repository: str
    revision: str | None = None
    path: str = ""

    def __str__(self) -> str:
        revision = f"@{self.revision}" if self.revision else ""
        return f"{SCHEME}{self.repository}{revision}" + (f"/{self.path}" if self.path else "")


def is_hub_name(name: object) -> bool:
    """Whether `name` is meant as a name on the hub."""
    return isinstance(name, str) and name.startswith(SCHEME)


def parse(name: str) -> HubName:
    """The parts of a name. Raises BundleError if it is not a valid name."""
    match = _NAME.fullmatch(name)
    path = match["path"].strip("/") if match else ""
    if match is None or {".", ".."} & {*match["repository"].split("/"), *path.split("/")}:
        raise BundleError(f"{name} is no name on the hub: write hf://OWNER/REPO[@REVISION][/SUBFOLDER].")
    return HubName(match["repository"], match["revision"], path)


def fetch_folder(name: str, patterns: Sequence[str]) -> Path:
    """A folder from the hub in the library's cache, downloaded if it is not there yet.

    Args:
      name: a name on the hub.
      patterns: patterns of the files to fetch, relative to the folder, as in `fnmatch`.

    Raises:
      BundleError: the name is invalid, there is no such repository or revision, it cannot be downloaded, or a file does
        not match its hash on the hub.
    """
    place = parse(name)
    prefix = f"{glob.escape(place.path)}/" if place.path else ""
    return _fetch(name, place, [prefix + pattern for pattern in patterns], BundleError)


def fetch_file(name: str) -> Path:
    """A file from the hub in the library's cache. Raises CheckpointError like `fetch_folder`, or if it is missing."""
    try:
        place = parse(name)
    except BundleError:
        place = HubName("")
    if not place.path:
        raise CheckpointError(f"{name} names no file on the hub: write hf://OWNER/REPO[@REVISION]/FILE.")
    path = _fetch(name, place, [glob.escape(place.path)], CheckpointError)
    if not path.is_file():
        raise CheckpointError(f"{name}: The repository has no such file.")
    return path


def _fetch(name: str, place: HubName, patterns: Sequence[str], kind: type[CdcError]) -> Path:
    """The path of the folder or file in the cache, after fetching the repository's files that match these patterns."""
    with _errors(name, kind) as hub:
        options = {"revision": place.revision, "allow_patterns": patterns, **_LIBRARY}
        snapshot = Path(hub.snapshot_download(place.repository, **options))
    for path in sorted(snapshot.rglob("*")):
        relative = path.relative_to(snapshot).as_posix()
        if path.is_file() and any(fnmatch.fnmatch(relative, pattern) for pattern in patterns):
            _check_hash(name, path, kind)
    return Path(snapshot, *place.path.split("/"))


def cached_snapshots() -> Iterator[tuple[HubName, Path]]:
    """Yields the name and folder of every revision of every model in the library's cache; nothing without the library.

    A branch or tag names the commit that it last pointed to; other commits go by their own hashes.
    """
    try:
        import huggingface_hub
        from huggingface_hub.errors import CacheNotFound
    except ImportError:
        return
    try:
        cache = huggingface_hub.scan_cache_dir()
    except CacheNotFound:
        return
    places = [
        (HubName(repository.repo_id, None if ref == "main" else ref), Path(revision.snapshot_path))
        for repository in cache.repos
        if repository.repo_type == "model"
        for revision in repository.revisions
        for ref in revision.refs or [revision.commit_hash]
    ]
    yield from sorted(places, key=lambda place: str(place[0]))


def has_file(name: str, file: str) -> bool:
    """Whether a folder on the hub has a file. Raises BundleError if the hub cannot be asked."""
    place = parse(name)
    with _errors(name, BundleError) as hub:
        path = f"{place.path}/{file}" if place.path else file
        return hub.HfApi(**_LIBRARY).file_exists(place.repository, path, revision=place.revision)


def upload_folder(folder: Path, name: str, *, replaced: Sequence[str]) -> None:
    """Uploads a folder as one commit. A repository that does not exist is created as a public one.

    Args:
      folder: its files go into the named folder of the repository.
      name: its revision is a branch, which is created if it does not exist.
      replaced: patterns of the files there that the commit deletes unless it replaces them.

    Raises:
      BundleError: the hub refuses the upload or cannot be reached.
    """
    place = parse(name)
    with _errors(name, BundleError) as hub:
        api = hub.HfApi(**_LIBRARY)
        api.create_repo(place.repository, exist_ok=True)
        if place.revision:
            api.create_branch(place.repository, branch=place.revision, exist_ok=True)
        api.upload_folder(
            repo_id=place.repository,
            folder_path=folder,
            path_in_repo=place.path or None,
            revision=place.revision,
            commit_message="Upload a bundle of cdc_jax",
            delete_patterns=list(replaced),
        )


def card_header(license: str) -> str:
    """The metadata that the hub reads from the beginning of a model's README.md."""
    with _errors("A model card for the hub", BundleError) as hub:
        metadata = hub.ModelCardData(license=license, library_name="cdc_jax", tags=_TAGS)
        return f"---\n{metadata.to_yaml()}\n---\n\n"


@contextlib.contextmanager
def _errors(name: str, kind: type[CdcError]) -> Iterator:
    """Yields the library to a `with` block, and turns its errors into one sentence about `name`."""
    try:
        import huggingface_hub
        from huggingface_hub import errors
        from huggingface_hub.utils import logging
    except ImportError as error:
        raise kind(f"{name} needs the package huggingface_hub: pip install '.[hub]'.") from error
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # it warns about every failed attempt; our own message reports the outcome
    try:
        yield huggingface_hub
    except (CdcError, MemoryError):
        raise
    except errors.GatedRepoError as error:
        raise kind(f"{name}: Access needs the owner's consent: ask for it on the hub, and log in.") from error
    except errors.RepositoryNotFoundError as error:
        raise kind(f"{name}: The hub has no such repository, or only for those who are logged in.") from error
    except errors.RevisionNotFoundError as error:
        raise kind(f"{name}: The repository has no such revision.") from error
    except errors.LocalEntryNotFoundError as error:
        if isinstance(error.__cause__, errors.OfflineModeIsEnabled):
            raise kind(f"{name} is not complete in the cache, and HF_HUB_OFFLINE forbids to download it.") from error
        raise kind(f"{name} is not in the cache, and the hub cannot be reached ({_cause_of(error)}).") from error
    except Exception as error:  # raised by whatever HTTP client the library uses
        raise kind(f"{name}: The hub cannot be used: {_cause_of(error)}.") from error
    finally:
        logging.set_verbosity(verbosity)


def _cause_of(error: BaseException) -> str:
    """The first line of the innermost error. For an HTTP error, that is its status, never the request's headers."""
    while error.__cause__ is not None:
        error = error.__cause__
    return reason_of(error)


def _check_hash(name: str, path: Path, kind: type[CdcError]) -> None:
    """Raises `kind` if a file in the cache does not match its hash on the hub.

    The cache stores a file under its hash: Git's blob hash (SHA-1), or the SHA-256 of a large file. On a file system
      without links, the hash is unknown and nothing is compared.
    """
    blob = path.resolve()
    if re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", blob.name) is None:
        return
    digest = hashlib.sha256()
    if len(blob.name) == 40:
        digest = hashlib.sha1(b"blob %d\0" % os.path.getsize(blob), usedforsecurity=False)
    with open(blob, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    if digest.hexdigest() != blob.name:
        raise kind(f"{name}: {path.name} is not the file that the hub has: delete {blob}, and try again.")
