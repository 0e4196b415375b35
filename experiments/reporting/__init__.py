"""How results are shown: figures, tables, charts and HTML pages."""
