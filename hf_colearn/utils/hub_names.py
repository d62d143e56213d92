"""Names of repositories and branches on the Hub, checked before anything is sent.

Source: https://huggingface.co/docs/huggingface_hub/package_reference/utilities (`validate_repo_id`), `git check-ref-format`.
"""

import re

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id


_RULE = (
    "letters, digits, '-', '_' and '.', none of these at the beginning or end of a part but '_', no '--' or '..', no '.git' "
    "at the end, and a name of 96 characters at most"
)
_NOT_IN_A_BRANCH = re.compile(r"[\s~^:?*\[\\\x00-\x1f\x7f]|\.\.|//|@\{|/\.|\.lock(/|$)|^[/.\-]|[/.]$|^@$")


def check_repo_id(repo_id: object, name: str = "repo_id", with_owner: bool = True) -> None:
    """Refuses what the Hub takes for no repository, such as `a/b/c`, with the rule.

    Args:
        repo_id (`str`): Of a repository that is written to or linked.
        name (`str`): Of the argument, for the message.
        with_owner (`bool`): Whether `owner/name` is needed; else a name alone will do, which is of whoever is logged in.
    """
    form = "'owner/name'" if with_owner else "'owner/name' or 'name'"
    example = "'me/digits'" if with_owner else "'me/digits' or 'digits'"
    try:
        validate_repo_id(repo_id)  # type: ignore[arg-type]  # which it tells
        parts = str(repo_id).split("/")
        wrong = repo_id is None or (with_owner and len(parts) != 2)
        wrong = wrong or any(not part or part[0] in ".-" or part[-1] in ".-" for part in parts)
    except HFValidationError:
        wrong = True
    if wrong:
        raise ValueError(f"{name}={repo_id!r} is not of the form {form}, such as {example}: {_RULE}.")


def check_branch(revision: object, name: str = "revision") -> None:
    """Refuses what cannot be a branch, such as `my branch`, or a commit's id, which nothing can be added to."""
    if not isinstance(revision, str) or not revision or _NOT_IN_A_BRANCH.search(revision):
        raise ValueError(
            f"{name}={revision!r} cannot be a branch: its name is such as 'main' or 'v1.0', without spaces, '..', '//', "
            "and any of ~^:?*[\\, and does not begin with '-', '/' or '.' or end with '/', '.' or '.lock'."
        )
    if re.fullmatch(r"[0-9a-f]{40}", revision):
        raise ValueError(
            f"{name}={revision!r} is a commit, which nothing can be added to: name a branch, such as 'main'."
        )
