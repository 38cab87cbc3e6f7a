"""Everything an application of a few years asks and writes: look-ups, expressions, windows, bulk writes."""

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

from django.contrib.postgres.aggregates import ArrayAgg, JSONBAgg, StringAgg
from django.contrib.postgres.search import SearchQuery, SearchRank, SearchVector
from django.db import connection, transaction
from django.db.backends.postgresql.psycopg_any import NumericRange
from django.db.models import (
    Avg,
    Case,
    CharField,
    Count,
    Exists,
    F,
    FilteredRelation,
    Max,
    OuterRef,
    Prefetch,
    Q,
    StdDev,
    Subquery,
    Sum,
    Value,
    When,
    Window,
)
from django.db.models.functions import (
    Cast,
    Coalesce,
    Concat,
    ExtractWeekDay,
    ExtractYear,
    Greatest,
    JSONObject,
    Lag,
    Left,
    Length,
    Lower,
    Now,
    NullIf,
    Rank,
    RowNumber,
    Substr,
    TruncDay,
    TruncMonth,
)

from tests.queryplans.shops.by_django.models import ALL, Book, Customer, Item, Line, Order, Tag


def create() -> None:
    """The shop's tables, which no other table's names meet."""
    with connection.schema_editor() as editor:
        for model in ALL:
            editor.create_model(model)


def exercise() -> None:
    """Write, ask, change."""
    with transaction.atomic():
        _write()
        _read()
        _change()


def _write() -> None:
    tags = Tag.objects.bulk_create([Tag(word=f"w{n}") for n in range(20)])
    people = Customer.objects.bulk_create(
        [Customer(name=f"n{n}", email=f"{n}@example.com", extra={"n": n}, labels=["x"]) for n in range(30)]
    )
    book = Book.objects.create(title="A", price=Decimal("3.50"), isbn="1", weight=timedelta(days=1))
    book.tags.set(tags[:3])
    book.tags.remove(tags[0])
    part = Item.objects.create(title="A.1", price=1, whole=book, ages=NumericRange(3, 9))
    order = Order.objects.create(customer=people[0])
    order.lines.create(item=book, pieces=2)
    order.lines.create(item=part)
    Customer.objects.get_or_create(email="0@example.com", defaults={"name": "again"})
    Customer.objects.update_or_create(email="1@example.com", defaults={"name": "one", "extra": {"a": {"b": [1]}}})
    Tag.objects.bulk_create([Tag(id=1, word="w")], ignore_conflicts=True)
    Tag.objects.bulk_create(
        [Tag(id=2, word="other")], update_conflicts=True, unique_fields=["id"], update_fields=["word"]
    )


def _read() -> None:
    since = datetime(2026, 1, 1, tzinfo=UTC)
    newest = Order.objects.filter(customer=OuterRef("pk")).order_by("-placed_at")
    ranked = Window(Rank(), partition_by=[F("name")], order_by=F("id").desc())
    for asked in (
        Customer.objects.order_by(F("born").desc(nulls_last=True), "name")[10:20],
        Customer.objects.prefetch_related(
            "orders__lines__item", Prefetch("orders", Order.objects.filter(paid=True), "paid_orders")
        ),
        Order.objects.select_related("customer").filter(customer__name__icontains="n", placed_at__gte=since),
        Book.objects.filter(tags__word__in=["w1", "w2"]).distinct(),
        Item.objects.filter(book__isnull=True).exclude(tags__word="w1"),
        Customer.objects.filter(Q(name__startswith="n") | ~Q(email__iexact="X@example.com"), orders__isnull=False),
        Customer.objects.filter(name__regex=r"^n\d", name__in=Customer.objects.filter(id__lt=9).values("name")),
        Customer.objects.annotate(n=Count("orders", filter=Q(orders__paid=False))).filter(n__gt=0),
        Customer.objects.annotate(spent=Sum(F("orders__lines__pieces") * F("orders__lines__item__price"))).values(
            "spent"
        ),
        Customer.objects.annotate(last=Subquery(newest.values("placed_at")[:1])).filter(Exists(newest)),
        Customer.objects.annotate(rank=ranked, row=Window(RowNumber(), order_by="id")).filter(rank__lte=2),
        Customer.objects.annotate(before=Window(Lag("id", 1, 0), order_by="id")).values_list("before"),
        Customer.objects.alias(unpaid=FilteredRelation("orders", condition=Q(orders__paid=False))).filter(
            unpaid__id__gt=0
        ),
        Customer.objects.values("name").annotate(most=Max("id"), all=Count("*")).filter(all__gte=1).order_by("-most"),
        Customer.objects.annotate(kind=Case(When(id__lt=9, then=Value("few")), default=Value("many")))
        .values("kind")
        .annotate(n=Count("id")),
        Customer.objects.filter(extra__n=3, extra__has_key="n"),
        Customer.objects.filter(extra__contains={"n": 3}, extra__a__b__0__gt=0),
        Customer.objects.filter(labels__contains=["x"], labels__len=1, labels__overlap=["x", "y"], labels__0="x"),
        Item.objects.filter(ages__contains=5, ages__overlap=NumericRange(1, 4), ages__startswith__gte=1),
        Item.objects.filter(weight__gt=timedelta(hours=3)).annotate(due=Now() + F("weight")),
        Order.objects.filter(placed_at__date=date(2026, 1, 1), placed_at__hour__range=(1, 5), placed_at__week_day=2),
        Order.objects.annotate(day=TruncDay("placed_at"), month=TruncMonth("placed_at"))
        .values("day", "month")
        .distinct(),
        Order.objects.annotate(year=ExtractYear("placed_at"), on=ExtractWeekDay("placed_at")).filter(year=2026, on=1),
        Order.objects.filter(placed_at__lt=Now() - timedelta(days=7)),
        Customer.objects.annotate(
            label=Concat(Lower("name"), Value("-"), Cast("id", CharField())),
            head=Left("name", 2),
            tail=Substr("name", 2, 3),
        ).filter(label__endswith="9"),
        Customer.objects.annotate(a=Coalesce("email", Value("-")), b=NullIf("name", Value("x")), c=Greatest("id", 5)),
        Customer.objects.annotate(size=Length("name")).filter(size__gt=1).values(doc=JSONObject(n="name", size="size")),
        Customer.objects.annotate(found=SearchVector("name")).filter(found=SearchQuery("n1")),
        Customer.objects.annotate(
            r=SearchRank(SearchVector("name", weight="A"), SearchQuery("n1 | n2", search_type="raw"))
        ),
        Customer.objects.filter(id__lt=3).union(Customer.objects.filter(id__gt=27), all=True).order_by("id"),
        Customer.objects.filter(id__lt=9).difference(Customer.objects.filter(id=2)),
        Customer.objects.distinct("name").order_by("name", "-id"),
        Customer.objects.only("name").defer("extra").in_bulk([1, 2, 3]),
        Customer.objects.select_for_update(skip_locked=True, of=("self",)).filter(id__gt=5)[:5],
        Customer.objects.raw("select id, name from by_django_customer where id = %s and name <> %s", [1, "x"]),
        Customer.objects.values_list("id", flat=True).order_by("?")[:3],
        Order.objects.dates("placed_at", "month"),
    ):
        list(asked)
    Customer.objects.filter(id__in=range(1, 200)).exists()
    Customer.objects.filter(name="n1").count()
    Customer.objects.order_by("id").last()
    Customer.objects.filter(id__gt=2).earliest("id")
    Item.objects.aggregate(
        Avg("price"), StdDev("price"), all=StringAgg("title", ", "), some=ArrayAgg("id"), json=JSONBAgg("title")
    )
    Order.objects.filter(lines__item__tags__word="w1").aggregate(n=Count("id", distinct=True))


def _change() -> None:
    Customer.objects.filter(id__gt=20).update(name=Concat("name", Value("x")), born=date(2000, 1, 1))
    Order.objects.filter(customer__name="n0").update(paid=True)
    Line.objects.update(pieces=F("pieces") + 1)
    people = list(Customer.objects.filter(id__lt=5))
    for one in people:
        one.name = one.name.upper()
    Customer.objects.bulk_update(people, ["name", "extra"])
    people[0].save(update_fields=["name"])
    Tag.objects.filter(item__isnull=True).delete()
    Line.objects.filter(order__customer__name="N1").delete()
    Order.objects.all().delete()
    Item.objects.filter(whole__isnull=False).delete()
    Book.objects.all().delete()
    people[0].delete()
