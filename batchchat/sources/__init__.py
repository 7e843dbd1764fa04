"""From files and data sets to rows: JSON Lines, JSON lists, CSV, Parquet, `datasets`; every bad row with its place."""

from batchchat.sources.files import DataFile
from batchchat.sources.records import Item, Part, Reader
from batchchat.sources.selection import select
from batchchat.sources.source import Source, open_source

__all__ = ["DataFile", "Item", "Part", "Reader", "Source", "open_source", "select"]
