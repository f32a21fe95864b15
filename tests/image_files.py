"""Folders of images made for tests, and what a cache of decoded images holds."""

from __future__ import annotations

import pytest
from PIL import Image

from lrstudy.data.cache import prepare
from lrstudy.data.spec import DataSpec, ImageSpec
from lrstudy.errors import InputError


def image(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    picture.save(path, **options)
    return path


def entries(store):
    """What a store holds, unfinished builds included, locks aside."""
    return [path for path in (*store.glob("[!.]*"), *store.glob(".building/*")) if path.suffix != ".lock"]


def entry_of(store):
    (entry,) = entries(store)
    return entry


def fault(folder, store, **spec):
    with pytest.raises(InputError) as caught:
        prepare(DataSpec(f"folder:{folder}", image=ImageSpec(**spec)), store)
    assert not entries(store), "a failed build leaves nothing behind"
    return str(caught.value)
