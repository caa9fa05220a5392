# What the units of the folder systemd are as those of the package.
s:/opt/portmapd/bin/twistd -n --pidfile= portmapd:/usr/bin/portmapd:
s:/opt/portmapd/bin/:/usr/bin/:
s!^Documentation=!&man:portmapd(8) !
# The package brings the names of rpcbind's units as links, which go when it goes.
/^Alias=/d
/^RequiresMountsFor=\/opt/d
# rpcbind's files are read once, when they are newer than portmapd's own.
/^ExecStart=\/usr\/bin\/portmapd$/i Environment=PORTMAPD_IMPORT_RPCBIND=yes
