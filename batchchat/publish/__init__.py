"""Handing data sets over: a folder with sharded Parquet and a card, and its way to the hub."""
