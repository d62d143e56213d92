"""Publishing a finished run: files are uploaded first and appear in one atomic commit, however often it is tried."""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from huggingface_hub import CommitInfo, CommitOperationAdd, CommitOperationDelete, HfApi, ModelCard
from huggingface_hub.errors import RepositoryNotFoundError

from hf_colearn.hub.upload_manifest import UNSAFE, Files, UploadManifest, holds_token, upload_manifest
from hf_colearn.utils.hub_names import check_branch, check_repo_id
from hf_colearn.utils.hub_repository import HubRepository, PublishError, check_online, given_token


# What a loader could read in the place of what is published now.
OUTDATED = (".jinja", ".json", ".model", ".py", ".safetensors", ".txt", *UNSAFE)
OUTDATED_FOLDERS = ("adapter", "base", "report")
_HOLDS_TOKEN = "'{name}' holds an access token: remove it, and revoke it if others can read the file."


@dataclass(frozen=True)
class Published:
    """What [`publish`] has made: the repository's page, the id of its commit, the paths of its files; what of the folder it
    left out, and what else differs from the folder.
    """

    url: str
    commit: str
    files: tuple[str, ...]
    left_out: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def publish(
    run: str | Path,
    repo_id: str,
    *,
    private: bool | None = None,
    token: str | None = None,
    revision: str | None = None,
    adapter: bool = False,
    base: str | None = None,
    attempts: int = 5,
    timeout_s: float = 60.0,
) -> Published:
    """Publishes a finished run's student with its card and report, a saved model or an adapter, in one atomic commit.

    The folder is checked first, and never written to; [`planned`] tells what would be sent. Of a folder that
    `trainer.save_model()` or a checkpoint left, what only training needs stays here: its heads, pickled arguments, states
    and checkpoints. A card that is missing is written of what the folder knows. Large files that the Hub has already are
    not sent again. The commit also deletes what an earlier one left and a loader could read instead (weights, code, JSON,
    vocabularies, the folders `adapter`, `base` and `report`); other files of the repository, such as a licence, stay.

    Args:
        run (`str` or `Path`): A run with `student` or `model` in it, or the folder of any saved model, or of an adapter.
        repo_id (`str`): `owner/name` of the model repository, which is made if it is not there.
        private (`bool`, *optional*): Whether it must be private; by default the owner's setting decides for a new one.
        token (`str`, *optional*): With the right to write; by default the one of `hf auth login` or `HF_TOKEN`.
        revision (`str`, *optional*, defaults to `"main"`): A branch, which is made if it is not there.
        adapter (`bool`, *optional*, defaults to `False`): Publish the LoRA adapter of a run alone, as a PEFT repository.
        base (`str`, *optional*): Of an adapter: the repository of its base model.
        attempts (`int`, *optional*, defaults to 5): How often a request is made that meets an error of the server or of
            the connection, with pauses of 1, 2, 4, ... seconds.
        timeout_s (`float`, *optional*, defaults to 60): Seconds without an answer until a request counts as failed.

    Raises:
        FileNotFoundError, ValueError: If the folder is incomplete or holds what must not be published; nothing was sent.
        PublishError: Saying what the Hub or the network refused, and the way out. It can be repeated.
    """
    if attempts < 1:
        raise ValueError(f"attempts={attempts} must be at least 1.")
    with planned(run, repo_id, revision=revision, adapter=adapter, base=base) as manifest:
        if manifest.refused:
            raise ValueError(f"'{run}' is not published as it is: {'; '.join(manifest.refused)}. Then repeat.")
        token = given_token(token)
        files = manifest.files | {"README.md": manifest.card.encode()}
        if (name := holds_token(files, token)) is not None:
            raise ValueError(_HOLDS_TOKEN.format(name=name))
        check_online()

        api = HfApi(token=token, library_name="hf_colearn")
        repository = HubRepository(api, repo_id, revision or "main", attempts, timeout_s)
        with repository.told():
            repository.with_retries(lambda: _prepare(repository, manifest, private))
            commit = repository.with_retries(lambda: _upload(repository, files))
    others = (tuple(manifest.left_out), tuple(manifest.notes))
    return Published(f"{api.endpoint}/{repo_id}", commit.oid, tuple(sorted(files)), *others)


@contextmanager
def planned(
    run: str | Path, repo_id: str, *, revision: str | None = None, adapter: bool = False, base: str | None = None
) -> Iterator[UploadManifest]:
    """What [`publish`] would send, without a token and the network; within, the files that it has to write exist.

    The arguments are those of [`publish`], which are checked.
    """
    check_repo_id(repo_id)
    check_branch("main" if revision is None else revision)
    if base is not None:
        check_repo_id(base, "base", with_owner=False)
        if not adapter and not (Path(run) / "adapter_config.json").is_file():
            raise ValueError(f"base='{base}' names an adapter's base model: set adapter=True (--adapter), or drop it.")
    with TemporaryDirectory() as scratch:
        manifest = upload_manifest(Path(run), repo_id, Path(scratch), adapter, base)
        if not manifest.refused and (name := holds_token(manifest.files, None)) is not None:
            manifest.refused.append(_HOLDS_TOKEN.format(name=name).rstrip("."))
        yield manifest


def dry_run(manifest: UploadManifest, repo_id: str, private: bool | None = None, revision: str | None = None) -> str:
    """A manifest in words: repository, visibility, branch, every file with its size, what is left out and refused."""
    files: Files = manifest.files | ({"README.md": manifest.card.encode()} if manifest.card else {})
    sizes = {
        name: len(source) if isinstance(source, bytes) else source.stat().st_size for name, source in files.items()
    }
    visibility = "private" if private else "as the owner's settings say, or as it is where it exists"
    lines = [
        "Nothing is sent: this is what `hf-colearn publish` would do.",
        f"Repository: {repo_id}, of a model",
        f"Visibility: {visibility}",
        f"Revision:   {revision or 'main'}",
        f"Files:      {len(files)}, {sum(sizes.values()):,} bytes together",
        *(f"  {sizes[name]:>15,}  {name}" for name in sorted(files)),
    ]
    for title, told in (("Left out, of the training:", manifest.left_out), ("Note:", manifest.notes)):
        lines += [title, *(f"  {text}" for text in told)] if told else []
    if manifest.refused:
        lines += ["Refused, so that nothing would be sent:", *(f"  {text}" for text in manifest.refused)]
    return "\n".join(lines)


def _prepare(repository: HubRepository, manifest: UploadManifest, private: bool | None) -> None:
    """Has the card validated, the repository and its branch made, and the base model looked for."""
    try:
        ModelCard(manifest.card).validate()
    except json.JSONDecodeError:
        raise
    except ValueError as error:
        raise PublishError(f"The Hub does not take the card's metadata: {error}. Mend README.md.") from error
    repository.make(private)
    if manifest.base is not None:
        try:
            repository.api.model_info(manifest.base, timeout=repository.timeout_s)
        except RepositoryNotFoundError as error:
            raise PublishError(
                f"The base model '{manifest.base}' is not on the Hub: publish it first, or name another base."
            ) from error


def _upload(repository: HubRepository, files: dict[str, Path | bytes]) -> CommitInfo:
    """Uploads what the Hub lacks, and commits it on the state that it was compared with."""
    api, revision = repository.api, repository.revision
    head = api.model_info(repository.repo_id, revision=revision, timeout=repository.timeout_s)
    there = [file.rfilename for file in head.siblings]
    additions = [CommitOperationAdd(path, source) for path, source in files.items()]
    repository.send_large(additions)
    return api.create_commit(
        repository.repo_id,
        [*additions, *(CommitOperationDelete(path) for path in _outdated(there, files))],
        commit_message="Publish with hf_colearn",
        revision=revision,
        parent_commit=head.sha,
    )


def _outdated(there: Iterable[str], files: Iterable[str]) -> list[str]:
    """What an earlier commit left that a loader could read in place of these files."""
    folders = {*OUTDATED_FOLDERS, *(path.split("/")[0] for path in files if "/" in path)}
    gone = sorted(set(there) - set(files))
    return [path for path in gone if (path.split("/")[0] in folders if "/" in path else path.endswith(OUTDATED))]
