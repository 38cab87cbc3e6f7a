"""Where a policy comes from: task.yaml, or a file of the operator's; and what a platform calls its tables.

    rules:
      - {name: orders, table: shop.orders, timestamp: placed, assume_tz: Europe/Berlin, keep_days: 365, account: none}
    duplicates: []

The file is trusted as task.yaml is: its conditions are SQL that the task's role runs.
"""

import re
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from shared.adoption import Adoption, beside, read_adoption
from shared.context import Context
from shared.errors import Refused
from shared.objects import Missing
from shared.params import build, resolve
from shared.retention.rules import Duplicates, Policy, Rule
from shared.strict_yaml import ManifestError, parse


def policy_of(
    ctx: Context,
    rules: tuple[Rule, ...],
    duplicates: tuple[Duplicates, ...] = (),
    *,
    rules_file: str = "",
    adopt_file: str = "",
) -> Policy:
    """The policy: `rules` and `duplicates`, or those of `rules_file`; by the names that `adopt_file` gives them, or
    else the adopt.yaml beside the tasks.

    Raises Refused, or ManifestError naming the key that is wrong.
    """
    if rules_file:
        document = parse(_read(ctx, rules_file).decode("utf-8"), _name(rules_file))
        policy = build(Policy, resolve(document, {}, _name(rules_file)), _name(rules_file))
    else:
        try:
            policy = Policy(rules, duplicates)
        except ValueError as error:
            raise ManifestError(f"rules: {error}") from error
    return adopted(policy, _adoption(ctx, adopt_file) if adopt_file else beside(ctx.task.folder.parent))


def adopted(policy: Policy, adoption: Adoption) -> Policy:
    """`policy` by the names, zones and units a platform has."""
    return Policy(
        tuple(_rule(rule, adoption) for rule in policy.rules),
        tuple(
            replace(
                d,
                table=adoption.table(d.table),
                key=tuple(adoption.column(d.table, c) for c in d.key),
                keep=_renamed(d.keep, d.table, adoption),
            )
            for d in policy.duplicates
        ),
    )


def _rule(rule: Rule, adoption: Adoption) -> Rule:
    columns = adoption.tables[rule.table].columns if rule.table in adoption.tables else {}
    stamp = columns.get(rule.timestamp)
    changed = replace(
        rule,
        table=adoption.table(rule.table),
        timestamp=adoption.column(rule.table, rule.timestamp),
        where=_renamed(rule.where, rule.table, adoption),
        account=_renamed(rule.account, rule.table, adoption),
        objects=rule.objects and replace(rule.objects, column=adoption.column(rule.table, rule.objects.column)),
    )
    if stamp is None:
        return changed
    unit = stamp.unit or rule.unit
    return replace(
        changed, assume_tz=stamp.assume_tz or rule.assume_tz, unit="ms" if unit == "ms" else "s" if unit else ""
    )


def _renamed(sql: str, table: str, adoption: Adoption) -> str:
    """An expression with the platform's columns; what is quoted in it is left alone."""

    def name(found: re.Match[str]) -> str:
        word = found[0]
        own = word if word[0] in "'\"" else adoption.column(table, word)
        return word if own == word else f'"{own}"'

    return re.sub(r"'(?:[^']|'')*'|\"[^\"]*\"|\b[a-z_][a-z0-9_]*\b", name, sql)


def _adoption(ctx: Context, file: str) -> Adoption:
    with TemporaryDirectory() as folder:
        copy = Path(folder) / _name(file)
        copy.write_bytes(_read(ctx, file))
        return read_adoption(copy)


def _name(location: str) -> str:
    return location.rpartition("/")[2]


def _read(ctx: Context, location: str) -> bytes:
    folder, slash, name = location.rpartition("/")
    if not slash or not name:
        raise Refused(f"{location!r}: expected a file with its folder, such as gs://bucket/rules.yaml or ./rules.yaml")
    try:
        with ctx.objects(f"{folder}/").open(name) as stream:
            return stream.read()
    except Missing:
        raise Refused(f"{location}: there is no such file") from None
