"""Billing: an account's tier follows its Stripe subscriptions, in whatever order Stripe tells of them."""
