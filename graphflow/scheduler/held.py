"""How many bytes of results the elements of maps hold for nodes that have not run yet."""

from __future__ import annotations

from collections import defaultdict

from graphflow.scheduler.board import DONE, Board
from graphflow.scheduler.windows import Windows


class Held:
    """Tells the windows what elements hold, so that few are open at once where each holds much."""

    def __init__(self, board: Board, windows: Windows) -> None:
        self._board, self._windows = board, windows
        self._holding: dict[int, tuple[int, int]] = {}  # task → bytes of its results, users of its element to come
        self._of_element: defaultdict[int, int] = defaultdict(int)

    def finish(self, number: int, holds: int | None) -> None:
        """A task is over, and its results take so many bytes (what was expected, if None)."""
        board = self._board
        element = board.element[number]
        size = board.tasks[number].holds if holds is None else holds
        if element >= 0:
            users = sum(board.element[u] == element and board.state[u] != DONE for u in board.users[number])
            if users:
                self._holding[number] = (size, users)
                self._of_element[element] += size
            self._windows.observe(element, self._of_element[element])
        for need in board.needs[number]:
            if board.element[need] == element:
                self._release(need, element)

    def _release(self, need: int, element: int) -> None:
        found = self._holding.pop(need, None)
        if found is None:
            return
        size, users = found
        if users > 1:
            self._holding[need] = (size, users - 1)
        else:
            self._of_element[element] -= size
