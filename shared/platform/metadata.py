"""What the platform's tables share: one MetaData, and the columns many of them have."""

from sqlalchemy import BigInteger, Column, ForeignKey, Identity, MetaData, Text, text

from shared.schema import NAMING

metadata = MetaData(naming_convention=NAMING)

EMPTY_OBJECT, EMPTY_LIST = text("'{}'"), text("'[]'")


def identity() -> Column[int]:
    """A surrogate key numbered by the database; not `always`, so that a restore can bring numbers back."""
    return Column("id", BigInteger, Identity(), primary_key=True)


def of_account(*, required: bool = True, index: bool = True) -> Column[str]:
    """The owning account; the row goes with it."""
    return Column(
        "account_id",
        Text,
        ForeignKey("user_profile.account_id", ondelete="CASCADE"),
        nullable=not required,
        index=index,
    )


def from_account() -> Column[str]:
    """The account a report came from; the report stays when the account goes."""
    return Column("account_id", Text, ForeignKey("user_profile.account_id", ondelete="SET NULL"), index=True)
