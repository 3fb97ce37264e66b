"""Results to what a person or a program reads: lines, tables, JSON values. Pure: touches no OS and prints nothing."""
