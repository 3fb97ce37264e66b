"""The faces of these tests: the async ones, also with a selector like that of Windows."""

from faces.faces import each_of
from faces.tasks.traffic import FACES

face = each_of(FACES)
