"""What the platform's tables share: one MetaData, one naming of constraints, one type for moments."""

from sqlalchemy import BigInteger, Column, DateTime, ForeignKey, Identity, MetaData, Text, text

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

Moment = DateTime(timezone=True)
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
