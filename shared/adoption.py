"""Run on a platform's own tables: `functions/adopt.yaml` maps the names tasks use to the names a database has.

    tables:
      audit_log:
        name: app.audit_events
        columns:
          created_at: {name: happened, assume_tz: Europe/Berlin}

What is not mapped keeps its name. Tasks that keep rules (`Task.adopts`) follow it; the SQL of the others is written
out, and a view of the name they use serves them.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from shared.strict_yaml import Fields, ManifestError, parse

FILE = "adopt.yaml"


class AdoptedColumn(NamedTuple):
    """A column's own name; `assume_tz` for timestamps without a zone, `unit` for epochs (s or ms)."""

    name: str
    assume_tz: str | None = None
    unit: str | None = None


class AdoptedTable(NamedTuple):
    """A table's own name (`schema.table`) and the columns that are called otherwise."""

    name: str
    columns: Mapping[str, AdoptedColumn]


class Adoption(NamedTuple):
    """The mapping of a whole platform, by the names tasks use."""

    tables: Mapping[str, AdoptedTable]

    def table(self, name: str) -> str:
        """What the table is called there."""
        return self.tables[name].name if name in self.tables else name

    def column(self, table: str, name: str) -> str:
        """What the column is called there."""
        adopted = self.tables[table].columns if table in self.tables else {}
        return adopted[name].name if name in adopted else name


def beside(functions: Path) -> Adoption:
    """The mapping beside the tasks in `functions`; without one every name is its own. Raises ManifestError."""
    file = functions / FILE
    return read_adoption(file) if file.exists() else Adoption({})


def read_adoption(file: Path) -> Adoption:
    """The mapping in `file`. Raises ManifestError."""
    try:
        document = parse(file.read_text(encoding="utf-8"), file.name)
    except FileNotFoundError:
        raise ManifestError(f"{file}: no such file: write the mapping of tables there") from None
    top = Fields(document, file.name)
    tables = Fields(top.take("tables", dict), f"{file.name}.tables")
    top.done()
    return Adoption(
        {name: _table(Fields(value, f"{tables.where}.{name}"), name) for name, value in tables.rest.items()}
    )


def _table(fields: Fields, name: str) -> AdoptedTable:
    own = fields.take("name", str, name)
    columns = Fields(fields.take("columns", dict, {}), f"{fields.where}.columns")
    fields.done()
    return AdoptedTable(
        own,
        {column: _column(Fields(value, f"{columns.where}.{column}"), column) for column, value in columns.rest.items()},
    )


def _column(fields: Fields, name: str) -> AdoptedColumn:
    column = AdoptedColumn(
        fields.take("name", str, name), fields.take("assume_tz", str, None), fields.take("unit", str, None)
    )
    if column.unit not in (None, "s", "ms"):
        raise ManifestError(f"{fields.where}.unit: expected s or ms, got {column.unit!r}")
    fields.done()
    return column
