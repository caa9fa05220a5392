"""Find instruments by a broadcast, and measure: ``python measure.py``; it needs python-vxi11."""

import vxi11

for host in vxi11.list_devices("127.255.255.255"):
    instrument = vxi11.Instrument(host)
    print(host, "says", instrument.ask("*IDN?"))
    print(float(instrument.ask("MEAS:VOLT?")), "V")
    instrument.close()
