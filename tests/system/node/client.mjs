// The npm package socks, driven by a test: `node client.mjs COMMAND OPTIONS`, OPTIONS is JSON.
// Everything that happens is one line of JSON on standard output; the test plays the target.

import dgram from "node:dgram";
import { SocksClient } from "socks";

const [command, json] = process.argv.slice(2);
const options = JSON.parse(json);

function say(event, facts) {
  console.log(JSON.stringify({ event, ...facts }));
}

function fail(error) {
  say("failed", { message: error.message });
  process.exit(1);
}

// Sends a greeting, prints all that comes back until the other end has ended, and ends.
function talk(socket) {
  let received = "";
  socket.setEncoding("utf8");
  socket.on("data", (text) => {
    received += text;
  });
  socket.on("end", () => {
    say("ended", { received });
    socket.end();
  });
  socket.on("error", fail);
  socket.write("hello from node\n");
  socket.resume();
}

// One datagram to each destination, one answer from each, then the TCP connection is closed.
function exchange({ socket: control, remoteHost: relay }) {
  const udp = dgram.createSocket(relay.host.includes(":") ? "udp6" : "udp4");
  let open = options.datagrams.length;
  udp.on("error", fail);
  udp.on("message", (packet) => {
    const { remoteHost, data, frameNumber } = SocksClient.parseUDPFrame(packet);
    say("datagram", { from: remoteHost, text: data.toString(), fragment: frameNumber });
    open -= 1;
    if (open === 0) {
      udp.close();
      control.end();
    }
  });
  for (const { to, text, fragment = 0 } of options.datagrams) {
    const frame = SocksClient.createUDPFrame({ remoteHost: to, data: Buffer.from(text), frameNumber: fragment });
    udp.send(frame, relay.port, relay.host);
  }
}

const client = new SocksClient({ command, proxy: { type: 5, ...options.proxy }, destination: options.destination });
client.on("error", fail);
client.on("bound", ({ remoteHost }) => say("bound", { address: remoteHost }));
client.on("established", (connected) => {
  say("established", { address: connected.remoteHost });
  if (command === "associate") {
    exchange(connected);
  } else {
    talk(connected.socket);
  }
});
client.connect();
