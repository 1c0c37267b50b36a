# Asks a host what has become of it (drift.sh), from beside the engine. Values: client.sh's. Prints what drift.sh does.
connect
on_host "drift.sh read"
