"""Makes the README's relative links absolute for the page of a package index, where the project has a public address.

That is the line `Source = https://github.com/OWNER/NAME` of `project_urls` in setup.cfg, and nowhere else.
"""

from __future__ import annotations

import configparser
import re
from pathlib import Path

from setuptools import setup

ROOT = Path(__file__).parent
LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!https?:|#)([^)\s]+)\)")


def with_absolute_links(text: str, source: str | None, version: str) -> str:
    """Links to files of the repository lead to the version's tag; unchanged without an address.

    Args:
        text: Markdown.
        source: address of the repository.
        version: whose tag is `v` and this.
    """
    if source is None:
        return text
    return LINK.sub(
        lambda found: f"{found[1]}[{found[2]}]({source}/{'raw' if found[1] else 'blob'}/v{version}/{found[3]})", text
    )


def _addresses(config: configparser.ConfigParser) -> dict[str, str]:
    lines = config.get("metadata", "project_urls", fallback="").splitlines()
    return {name.strip(): url.strip() for name, _, url in (line.partition("=") for line in lines)}


if __name__ == "__main__":
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    setup(long_description=with_absolute_links(readme, _addresses(config).get("Source"), config["metadata"]["version"]))
