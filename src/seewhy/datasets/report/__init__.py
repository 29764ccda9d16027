"""The report of an evaluation: one HTML file to look at and pass on."""

from .page import Card, Page, write_report

__all__ = ["Card", "Page", "write_report"]
