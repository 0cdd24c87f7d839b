"""Pictures of the boards without Grafana: real results of their queries, drawn by Nissa's own charts.

``make pictures`` starts the servers, sends the demo to them, executes the query of every panel, and writes a picture of
each board to ``docs/images``. Each picture states that Grafana did not draw it.
"""
