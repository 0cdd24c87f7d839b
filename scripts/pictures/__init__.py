"""Pictures of the boards, for where Grafana cannot be run: their queries' real answers, drawn by Nissa's own charts.

``make pictures`` starts the servers, sends the demo to them, asks what every panel asks, and writes a picture of each board
to ``docs/images``. Each picture says that it is not Grafana's.
"""
