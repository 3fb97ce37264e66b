"""The faces of these tests: the async ones, also with a selector like that of Windows."""

import pytest

from faces.faces import Face, wait_like_windows
from faces.tasks.traffic import FACES


@pytest.fixture(params=FACES, ids=lambda face: face.name)
def face(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Face:
    """Each async face in turn."""
    chosen: Face = request.param
    if chosen.like_windows:
        wait_like_windows(monkeypatch)
    return chosen
