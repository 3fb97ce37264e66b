"""Turns results into lines, tables and JSON values. Pure: touches no OS and prints nothing."""
