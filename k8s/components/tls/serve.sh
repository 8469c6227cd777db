# nats-server, which reads its certificate again only when it is told to: it is told when the mounted files are other ones.
dir=${1:-/etc/nats}
every=${2:-10}
seen=$(cat "$dir"/tls/* | sha256sum)
while sleep "$every" && kill -0 $$; do
    now=$(cat "$dir"/tls/* | sha256sum)
    if [ "$now" != "$seen" ] && kill -HUP $$; then
        seen=$now
    fi
done &
exec nats-server --config "$dir/nats.conf"
