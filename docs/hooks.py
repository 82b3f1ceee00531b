"""What MkDocs calls while it builds: the pictures are drawn anew, for pages and for phones, and no page may load
anything from another host.

`STUDY_RUNS=5 make docs` draws the jitter study of fewer runs than the published 100, to look at a change quickly.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from pictures import make_pictures

_LOADED = re.compile(
    r"""<(?:script|img|iframe|source)\b[^>]*\bsrc=["'](?:https?:)?//[^"']*"""
    r"""|<link\b[^>]*\brel=["'](?:stylesheet|preconnect|preload)["'][^>]*\bhref=["'](?:https?:)?//[^"']*"""
    r"""|<link\b[^>]*\bhref=["'](?:https?:)?//[^"']*["'][^>]*\brel=["'](?:stylesheet|preconnect|preload)["']"""
)
_PICTURE = re.compile(r"""<img\b[^>]*\bsrc=["']((?:\.\./)*pictures/[\w-]+)\.svg["'][^>]*>""")
_drawn: list[Path] = []


def on_pre_build(config: Any) -> None:
    """Draw every picture, and write the study's tables, where pages include them from."""
    folder = Path(config.config_file_path).parent / "build" / "pictures"
    _drawn[:] = make_pictures(folder, runs=int(os.environ.get("STUDY_RUNS", "100")))


def on_files(files: Files, config: Any) -> Files:
    """The pictures are files of the site, under pictures/."""
    for path in _drawn:
        if path.suffix == ".svg":
            files.append(File.generated(config, f"pictures/{path.name}", abs_src_path=str(path)))
    return files


def on_page_content(html: str, **_: Any) -> str:
    """On a phone each picture is the narrow one of its kind."""
    phone = r'<picture><source media="(max-width: 40rem)" srcset="\1-narrow.svg">\g<0></picture>'
    return _PICTURE.sub(phone, html)


def on_post_page(output: str, page: Any, config: Any) -> str:
    """Refuse a page that would load something from another host."""
    foreign = _LOADED.search(output)
    if foreign:
        raise PluginError(f"{page.file.src_path} loads from another host: {foreign[0]}")
    return output
