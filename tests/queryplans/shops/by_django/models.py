"""The shop's tables."""

from django.contrib.postgres.fields import ArrayField, IntegerRangeField
from django.db import models


class Customer(models.Model):
    name = models.CharField(max_length=100, db_index=True)
    email = models.EmailField(unique=True, null=True)
    born = models.DateField(null=True)
    extra = models.JSONField(default=dict)
    labels = ArrayField(models.TextField(), default=list)


class Tag(models.Model):
    word = models.CharField(max_length=40)


class Item(models.Model):
    title = models.CharField(max_length=200)
    price = models.DecimalField(max_digits=10, decimal_places=2)
    ages = IntegerRangeField(null=True)
    weight = models.DurationField(null=True)
    whole = models.ForeignKey("self", null=True, on_delete=models.CASCADE, related_name="parts")
    tags = models.ManyToManyField(Tag)


class Book(Item):
    isbn = models.CharField(max_length=20)


class Order(models.Model):
    customer = models.ForeignKey(Customer, on_delete=models.CASCADE, related_name="orders")
    placed_at = models.DateTimeField(auto_now_add=True)
    paid = models.BooleanField(default=False)


class Line(models.Model):
    order = models.ForeignKey(Order, on_delete=models.CASCADE, related_name="lines")
    item = models.ForeignKey(Item, on_delete=models.PROTECT)
    pieces = models.PositiveIntegerField(default=1)

    class Meta:
        constraints = (models.UniqueConstraint(fields=("order", "item"), name="once_an_order"),)


ALL = (Customer, Tag, Item, Book, Order, Line)
