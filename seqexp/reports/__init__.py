"""Runs beside one another: tables, pictures, and reports of them."""
