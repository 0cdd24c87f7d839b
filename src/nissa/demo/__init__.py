"""The demo: watch two small networks grow on handwritten digits, in about a minute."""
