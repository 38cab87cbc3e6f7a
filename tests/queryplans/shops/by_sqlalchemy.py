"""The shop through SQLAlchemy's ORM: loading strategies, inheritance, versions, upserts, bulk writes, windows."""

from datetime import UTC, date, datetime
from typing import Any, ClassVar

from sqlalchemy import (
    Column,
    ForeignKey,
    Integer,
    MetaData,
    Numeric,
    String,
    Table,
    and_,
    any_,
    case,
    cast,
    delete,
    distinct,
    exists,
    extract,
    false,
    func,
    insert,
    literal,
    or_,
    select,
    tablesample,
    tuple_,
    union_all,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY, INT4RANGE, JSONB, Range
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.engine import Engine
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    Session,
    aliased,
    contains_eager,
    joinedload,
    mapped_column,
    relationship,
    selectinload,
    subqueryload,
    undefer,
    with_polymorphic,
)

_SCHEMA = "sqlalchemy_shop"


class Base(DeclarativeBase):
    metadata = MetaData(schema=_SCHEMA)


_TAGGED = Table(
    "tagged",
    Base.metadata,
    Column("item_id", ForeignKey("item.id"), primary_key=True),
    Column("tag_id", ForeignKey("tag.id"), primary_key=True),
)


class Customer(Base):
    __tablename__ = "customer"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    email: Mapped[str | None] = mapped_column(unique=True)
    born: Mapped[date | None]
    extra: Mapped[dict[str, Any]] = mapped_column(JSONB, default=dict)
    labels: Mapped[list[str]] = mapped_column(ARRAY(String), default=list)
    version: Mapped[int] = mapped_column()
    orders: Mapped[list["Order"]] = relationship(back_populates="customer", cascade="all, delete-orphan")
    __mapper_args__: ClassVar = {"version_id_col": version}


class Tag(Base):
    __tablename__ = "tag"
    id: Mapped[int] = mapped_column(primary_key=True)
    word: Mapped[str]


class Item(Base):
    __tablename__ = "item"
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]
    title: Mapped[str]
    price: Mapped[float] = mapped_column(Numeric(10, 2))
    ages: Mapped[Range[int] | None] = mapped_column(INT4RANGE)
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("item.id"))
    text: Mapped[str | None] = mapped_column(deferred=True)
    tags: Mapped[list[Tag]] = relationship(secondary=_TAGGED)
    parts: Mapped[list["Item"]] = relationship()
    __mapper_args__: ClassVar = {"polymorphic_on": "kind", "polymorphic_identity": "item"}


class Book(Item):
    __tablename__ = "book"
    id: Mapped[int] = mapped_column(ForeignKey("item.id"), primary_key=True)
    isbn: Mapped[str]
    __mapper_args__: ClassVar = {"polymorphic_identity": "book"}


class Order(Base):
    __tablename__ = "order"
    id: Mapped[int] = mapped_column(primary_key=True)
    customer_id: Mapped[int] = mapped_column(ForeignKey("customer.id"))
    placed_at: Mapped[datetime] = mapped_column(server_default=func.now())
    paid: Mapped[bool] = mapped_column(default=False)
    customer: Mapped[Customer] = relationship(back_populates="orders")
    lines: Mapped[list["Line"]] = relationship(cascade="all, delete-orphan")


class Line(Base):
    __tablename__ = "line"
    order_id: Mapped[int] = mapped_column(ForeignKey("order.id"), primary_key=True)
    item_id: Mapped[int] = mapped_column(ForeignKey("item.id"), primary_key=True)
    pieces: Mapped[int] = mapped_column(Integer, default=1)
    item: Mapped[Item] = relationship()


def create(engine: Engine) -> None:
    """The shop's tables, in a schema of their own."""
    with engine.begin() as connection:
        connection.exec_driver_sql(f"create schema {_SCHEMA}")
        Base.metadata.create_all(connection)


def exercise(engine: Engine) -> None:
    """Everything an application of a few years asks and writes."""
    with Session(engine) as session, session.begin():
        _write(session)
        session.flush()
        _read(session)
        _change(session)


def _write(session: Session) -> None:
    tags = [Tag(word=word) for word in ("new", "old", "rare")]
    book = Book(title="A", price=3, isbn="1", tags=tags[:2], parts=[Item(title="A.1", price=1, ages=Range(3, 9))])
    people = [Customer(name=f"n{n}", email=f"{n}@example.com", extra={"n": n}, labels=["x"]) for n in range(30)]
    people[0].orders.append(Order(lines=[Line(item=book, pieces=2)]))
    session.add_all([*tags, book, *people])
    session.flush()
    session.execute(insert(Tag), [{"word": f"w{n}"} for n in range(50)])
    session.execute(insert(Tag).returning(Tag.id, sort_by_parameter_order=True), [{"word": "r1"}, {"word": "r2"}])
    session.execute(insert(Tag).from_select(["word"], select(Customer.name).where(Customer.id < 3)))
    row = {"name": "n1", "email": "1@example.com", "extra": {}, "labels": [], "version": 1}
    adding = upsert(Customer).values(row)
    session.execute(adding.on_conflict_do_nothing(index_elements=["email"]))
    session.execute(
        adding.on_conflict_do_update(
            index_elements=["email"],
            set_={"name": adding.excluded.name},
            where=Customer.name != adding.excluded.name,
        ).returning(Customer.id)
    )


def _read(session: Session) -> None:
    session.expire_all()
    found = session.get(Customer, 1)
    assert found is not None
    session.refresh(found, with_for_update={"skip_locked": True})
    assert [line.item.title for order in found.orders for line in order.lines]
    other = aliased(Customer)
    many = with_polymorphic(Item, [Book])
    spent = (
        select(Order.customer_id, func.sum(Line.pieces * Item.price).label("spent"))
        .join(Line, Line.order_id == Order.id)
        .join(Item, Item.id == Line.item_id)
        .group_by(Order.customer_id)
        .subquery()
    )
    tree = select(Item.id, literal(1).label("depth")).where(Item.parent_id.is_(None)).cte("tree", recursive=True)
    tree = tree.union_all(select(Item.id, tree.c.depth + 1).join(tree, Item.parent_id == tree.c.id))
    newest = select(Order).where(Order.customer_id == Customer.id).order_by(Order.placed_at.desc()).limit(2)
    lateral = newest.lateral("newest")
    size = case((Customer.id < 9, "few"), else_="many").label("size")
    sampled = aliased(Customer, tablesample(Customer, func.bernoulli(10)))
    for question in (
        select(Customer).order_by(Customer.name.desc().nulls_last()).limit(10).offset(20),
        select(Customer).options(joinedload(Customer.orders).joinedload(Order.lines).joinedload(Line.item)).limit(5),
        select(Customer).options(selectinload(Customer.orders).selectinload(Order.lines)),
        select(Customer).options(subqueryload(Customer.orders)).where(Customer.name.startswith("n")),
        select(Order).join(Order.customer).options(contains_eager(Order.customer)).where(Customer.email.ilike("%x%")),
        select(Item).options(undefer(Item.text), selectinload(Item.tags), selectinload(Item.parts)),
        select(many).where(or_(many.Book.isbn == "1", many.price.between(1, 9))),
        select(Book).where(Book.tags.any(Tag.word.in_(["new", "old"]))),
        select(Customer).where(~Customer.orders.any(Order.paid.is_(False))),
        select(Order).where(Order.customer.has(and_(Customer.name == "n0", Customer.born.is_(None)))),
        select(func.count()).select_from(select(Customer.id).where(Customer.name.like("n%")).subquery()),
        select(func.count(distinct(Order.customer_id))).where(Order.placed_at > datetime(2026, 1, 1, tzinfo=UTC)),
        select(exists().where(Customer.email == "1@example.com")),
        select(Customer.name, spent.c.spent).outerjoin(spent, spent.c.customer_id == Customer.id).limit(3),
        select(tree.c.depth, func.count()).group_by(tree.c.depth),
        select(Customer.name, lateral.c.id).join(lateral, literal(True)),
        select(Customer.id, func.row_number().over(partition_by=Customer.name, order_by=Customer.id.desc())),
        select(size, func.count()).group_by("size"),
        select(extract("year", Order.placed_at), func.date_trunc("day", Order.placed_at)).distinct(),
        select(Customer.extra["n"].as_integer(), Customer.extra["a", "b"].astext).where(Customer.extra.contains({})),
        select(Customer.id).where(literal("x") == any_(Customer.labels), Customer.labels.overlap(["x", "y"])),
        select(Item.id).where(Item.ages.contains(5), Item.ages.overlaps(Range(1, 4))),
        select(Customer.id).where(tuple_(Customer.name, Customer.id) > tuple_(literal("n"), literal(5))).limit(5),
        select(Customer.id).where(Customer.id.in_(range(100)), Customer.id.not_in([1, 2]), false().is_(False)),
        select(cast(Customer.id, String) + "x", func.coalesce(Customer.email, "-"), func.now()),
        union_all(select(Tag.word).where(Tag.id < 9), select(Customer.name).where(Customer.id < 9)).limit(4),
        select(Customer, other).join(other, and_(other.name == Customer.name, other.id > Customer.id)),
        select(func.percentile_cont(0.5).within_group(Item.price), func.string_agg(Item.title, ", ")),
        select(Item.kind, func.sum(Item.price)).group_by(func.rollup(Item.kind)).having(func.count() > 1),
        select(Customer.id).with_for_update(skip_locked=True, of=Customer).limit(5),
        select(sampled.id).where(sampled.born > date(2000, 1, 1)),
    ):
        session.execute(question).unique().all()


def _change(session: Session) -> None:
    person = session.get_one(Customer, 2)
    person.name, person.extra = "changed", {"at": datetime.now(UTC).isoformat()}
    session.flush()  # with its version
    session.execute(update(Customer).where(Customer.id > 20).values(name=Customer.name + "x").returning(Customer.id))
    session.execute(
        update(Customer), [{"id": 3, "name": "three", "version": 1}, {"id": 4, "name": "four", "version": 1}]
    )
    session.execute(update(Order).where(Order.customer_id == Customer.id, Customer.name == "n0").values(paid=True))
    session.execute(delete(Tag).where(Tag.id.in_(select(Tag.id).where(Tag.word.like("w%")).limit(10))))
    session.execute(delete(Line).where(Line.order_id == Order.id, Order.paid.is_(False)))
    session.delete(session.get_one(Customer, 1))  # with its orders and their lines
    session.flush()
