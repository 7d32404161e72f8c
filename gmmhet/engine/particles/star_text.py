"""Star text: a strict reader and a writer.

A data block is one table: either a loop, whose rows are one line each (as RELION writes and reads them), or
lines of ``_label value``. Values are separated by blanks or tabs; one that starts with a quote ends at the
same quote before a blank; ``#`` at the start of a value begins a comment. Nothing is guessed: a row with a
value too many or too few is an error, never padded or shifted.
"""
import re
from typing import Dict, Iterable, List, Mapping, Optional, Sequence, Tuple

import numpy as np
import pandas as pd

from gmmhet.engine.io.errors import ParticleError

#: one value of a line; its groups: comment, in double quotes, in single quotes, plain, broken
_TOKEN = re.compile(rb"""\s*(?:(\#.*)|"((?:[^"]|"(?=\S))*)"(?=\s|$)"""
                    rb"""|'((?:[^']|'(?=\S))*)'(?=\s|$)|(?!["'])(\S+)|(\S.*))""", re.DOTALL)
#: text that is read, and rows that are written, at a time
_CHUNK_BYTES, _CHUNK_ROWS = 2**19, 2000
_BLANK = np.isin(np.arange(256), list(b" \t\n\r\v\f"))
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def read_tables(path: str) -> Dict[str, pd.DataFrame]:
    """Tables of a star file, with every value as it stands.

    Returns
    -------
    dict
        name of the data block (without ``data_``) to DataFrame. A column is int64 or float64 where every
        value is such a number, written plainly; else text. Columns whose label ends in ``Name`` are always
        text.

    Raises
    ------
    ParticleError
        naming the line, when the text is not such a file.
    """
    tables: Dict[str, _Block] = {}
    number, block = 0, None
    with open(path, "rb") as file:
        while lines := file.readlines(_CHUNK_BYTES):
            if block is not None and block.take_rows(b"".join(lines)):
                number += len(lines)
                continue
            for line in lines:
                number += 1
                where = "%s, line %d" % (path, number)
                if number == 1:
                    line = line.removeprefix(_BYTE_ORDER_MARK)
                tokens = _tokens(line, where)
                if not tokens:
                    continue
                head = line.split(None, 1)[0]       # with its quotes: a quoted value is no label or keyword
                if len(tokens) == 1 and head.startswith(b"data_"):
                    block = _Block(_text(head[5:], where), path)
                    if block.name in tables:
                        raise ParticleError("%s: a second table 'data_%s' begins here; expected one: keep "
                                            "the one that is meant" % (where, block.name))
                    tables[block.name] = block
                elif block is None:
                    raise ParticleError("'%s' is not a star file: expected a line 'data_particles' first, "
                                        "got '%s' in line %d" % (path, _excerpt(line), number))
                else:
                    block.take(head, tokens, line, where)
    return {name: block.table() for name, block in tables.items()}


def _tokens(line: bytes, where: str) -> List[bytes]:
    """The values of one line; comments dropped, quotes removed."""
    if b"\0" in line:
        raise ParticleError("%s holds a NUL byte: the file is binary, encoded as UTF-16, or damaged; "
                            "expected plain text" % where)
    if b"\r" in line and b"\r" in line.rstrip():
        raise ParticleError("%s has a carriage return inside: convert the file to Unix line ends" % where)
    if b"#" in line or b'"' in line or b"'" in line:
        matches = [match.groups() for match in _TOKEN.finditer(line.strip())]
        if any(broken is not None for *_, broken in matches):
            raise ParticleError("%s has a quote that is not closed: '%s'; close it or remove it" % (
                where, _excerpt(line)))
        return [next(word for word in words[1:] if word is not None) for words in matches if words[0] is None]
    return line.split()


class _Block:
    """One data block while it is being read."""

    def __init__(self, name: str, path: str):
        self.name, self.path = name, path
        self.labels: List[str] = []
        self.is_loop = False
        self._single: List[bytes] = []                  # values of a block without loop
        self._rows: List[List[bytes]] = []              # rows read line by line, not yet in a chunk
        self._chunks: List[List[np.ndarray]] = []       # columns of many rows each

    def take(self, head: bytes, tokens: List[bytes], line: bytes, where: str) -> None:
        """One line of the block that is not empty; `head` is its first value as it stands there."""
        if head.startswith(b"_"):
            self._label(tokens, where)
        elif head == b"loop_" and len(tokens) == 1:
            if self.is_loop or self.labels:
                raise ParticleError("%s: 'loop_' inside table '%s', which has begun already: put 'data_' and "
                                    "a name before it" % (where, self.name))
            self.is_loop = True
        elif self.is_loop and self.labels:
            self._row(tokens, line, where)
        else:
            raise ParticleError("%s: expected 'loop_' or a line '_label value' in table '%s', got '%s'" % (
                where, self.name, _excerpt(line)))

    def take_rows(self, lines: bytes) -> bool:
        """Take many lines at once when all are plain rows.

        Returns
        -------
        bool, False when one needs a closer look; nothing is taken then.
        """
        width = len(self.labels)
        is_plain = not any(sign in lines for sign in (b"\0", b"\r", b"#", b'"', b"'"))
        if not self.is_loop or width < 2 or not lines.endswith(b"\n") or not is_plain:
            return False
        blank = _BLANK[np.frombuffer(b"\n" + lines, np.uint8)]
        begins = np.flatnonzero(np.frombuffer(lines, np.uint8) == ord("\n"))[:-1] + 1
        # of each line
        n_values = np.add.reduceat(blank[:-1] & ~blank[1:], np.append(0, begins), dtype=np.int64)
        words = lines.split()
        if not np.isin(n_values, (0, width)).all() or not words:
            return False
        if any(word.startswith(b"_") for word in words[::width]):
            return False
        self._close_chunk()
        self._chunks.append(self._typed([words[i::width] for i in range(width)]))
        return True

    def _label(self, tokens: List[bytes], where: str) -> None:
        """A line that begins with a label."""
        label = _text(tokens[0][1:], where)
        if self._rows or self._chunks:
            raise ParticleError("%s: label _%s stands after the first row of table '%s'; expected a row "
                                "(quote a value that begins with _)" % (where, label, self.name))
        if label in self.labels:
            raise ParticleError("%s: column _%s occurs twice in table '%s'; remove one" % (
                where, label, self.name))
        if len(tokens) != (1 if self.is_loop else 2):
            expected = "a label alone before the rows" if self.is_loop else (
                "a label and its value; if this is a table with rows, the line 'loop_' is missing before its "
                "labels")
            raise ParticleError("%s: _%s is followed by %d values; expected %s" % (
                where, label, len(tokens) - 1, expected))
        self.labels.append(label)
        self._single += tokens[1:]

    def _row(self, tokens: List[bytes], line: bytes, where: str) -> None:
        """A row of a loop."""
        if len(tokens) == len(self.labels):
            self._rows.append(tokens)
            return
        row = sum(len(chunk[0]) for chunk in self._chunks) + len(self._rows) + 1
        image = next((" (%s)" % _excerpt(word) for word in tokens if b"@" in word), "")
        end = "" if line.endswith(b"\n") else "; the file ends in this row and may be cut short"
        raise ParticleError("%s: row %d of table '%s'%s has %d values, expected %d, one for each label%s: "
                            "correct the row or remove it" % (
                                where, row, self.name, image, len(tokens), len(self.labels), end))

    def _close_chunk(self) -> None:
        """Turn the rows read line by line into columns."""
        if self._rows:
            self._chunks.append(self._typed(zip(*self._rows)))
            self._rows = []

    def _typed(self, columns: Iterable[Sequence[bytes]]) -> List[np.ndarray]:
        labelled = zip(self.labels, columns)
        return [_typed_column(label, words, self.path, self.name) for label, words in labelled]

    def table(self) -> pd.DataFrame:
        """The block as a DataFrame."""
        if self._single:
            self._rows = [self._single]
        self._close_chunk()
        if not self._chunks:
            return pd.DataFrame(columns=self.labels)
        columns = zip(self.labels, zip(*self._chunks))
        return pd.DataFrame({label: _concatenate(chunks) for label, chunks in columns})


def _typed_column(label: str, words: Sequence[bytes], path: str, table: str) -> np.ndarray:
    """Values of one column as int64, float64 or text (object)."""
    if not label.endswith("Name"):
        numbers = _numbers(words)
        if numbers is not None:
            return numbers
    try:
        known = {word: word.decode() for word in set(words)}
    except UnicodeDecodeError as error:
        raise ParticleError("%s: column %s of table '%s' holds %s, which is not UTF-8: save the file as "
                            "UTF-8 text" % (path, label, table, ascii(error.object))) from None
    return np.array([known[word] for word in words], object)


def _numbers(words: Sequence[bytes]) -> Optional[np.ndarray]:
    """Words as int64 where each is an integer written plainly, else float64; None where one is no number, or
    an integer like 007."""
    text = b"".join(words)
    if b"_" in text:
        return None
    try:
        if text.translate(None, b"-0123456789"):
            return np.fromiter(map(float, words), np.float64, len(words))
        numbers = np.fromiter(map(int, words), np.int64, len(words))
    except (ValueError, OverflowError):
        return None
    return numbers if sum(map(len, map(b"%d".__mod__, numbers.tolist()))) == len(text) else None


def _concatenate(chunks: Tuple[np.ndarray, ...]) -> np.ndarray:
    """One column of its chunks; numbers become text where another chunk has text."""
    if len({chunk.dtype for chunk in chunks}) > 1 and any(chunk.dtype == object for chunk in chunks):
        chunks = tuple(chunk if chunk.dtype == object else np.array(list(map(repr, chunk.tolist())), object)
                       for chunk in chunks)
    return np.concatenate(chunks)


def _text(word: bytes, where: str) -> str:
    try:
        return word.decode()
    except UnicodeDecodeError:
        raise ParticleError("%s: %s is not UTF-8: save the file as UTF-8 text" % (
            where, ascii(word))) from None


def _excerpt(line: bytes, most: int = 60) -> str:
    """A line or value for a message, its first `most` characters."""
    text = line.strip().decode(errors="replace")
    return text if len(text) <= most else text[:most] + "..."


def write_tables(path: str, tables: Mapping[str, pd.DataFrame]) -> None:
    """Write tables as loops, numbers with all their digits.

    Parameters
    ----------
    path : str
    tables : dict, name of the data block to DataFrame; columns of numbers or text.

    Raises
    ------
    ParticleError
        when a text cannot stand in a star file (a line break, or both kinds of quotes before blanks).
    """
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        for name, table in tables.items():
            file.write("\n# version 30001\n\ndata_%s\n\nloop_\n" % name)
            file.writelines("_%s #%d\n" % (label, i) for i, label in enumerate(table.columns, 1))
            for start in range(0, len(table), _CHUNK_ROWS):
                rows = table.iloc[start:start + _CHUNK_ROWS]
                columns = [_as_text(label, rows[label], len(table.columns) == 1) for label in table.columns]
                file.writelines("\t".join(row) + "\n" for row in zip(*columns))
            file.write("\n")


def _as_text(label: str, values: pd.Series, is_alone: bool) -> List[str]:
    """Values of one column as they stand in the file."""
    if values.dtype.kind in "iufb":
        return list(map(repr, (values.astype(int) if values.dtype.kind == "b" else values).tolist()))
    texts = [str(value) for value in values]
    quoted = {text: _in_quotes(label, text, is_alone) for text in set(texts)}
    return [quoted[text] for text in texts]


def _in_quotes(label: str, text: str, is_alone: bool) -> str:
    """A text as it stands in the file, in quotes where it needs them; `is_alone`: it is the only value of its
    row."""
    is_keyword = is_alone and text.startswith(("data_", "loop_"))
    if text and not re.search(r"\s", text) and text[0] not in "\"'#_" and not is_keyword:
        return text
    quote = next((q for q in "\"'" if not re.search(q + r"(\s|$)", text)), None)
    if quote is None or re.search(r"[\r\n\0]", text):
        raise ParticleError("column %s holds %r, which cannot be written to a star file: change the text" % (
            label, text))
    return quote + text + quote
