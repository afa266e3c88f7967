// A person with Node's HTTP client: node people.mjs BASE_URL LOCAL_ADDRESS USER PASSWORD SECONDS
import http from "node:http";

const [base, local, user, password, seconds] = process.argv.slice(2);
const deadline = Date.now() + Number(seconds) * 1000;
const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
let cookie = "";

function call(method, path, body) {
  return new Promise((resolve, reject) => {
    const headers = { accept: "*/*", "user-agent": "node", ...(cookie && { cookie }) };
    if (body) headers["content-type"] = "application/json";
    const request = http.request(base + path, { method, headers, agent, localAddress: local }, (response) => {
      response.resume();
      response.on("end", () => {
        const set = response.headers["set-cookie"];
        if (set) cookie = set.map((c) => c.split(";")[0]).join("; ");
        console.log(JSON.stringify({ time: Date.now() / 1000, client: local, stack: "node", path, status: response.statusCode }));
        resolve();
      });
    });
    request.on("error", reject);
    request.end(body ? JSON.stringify(body) : undefined);
  });
}

const pause = () => new Promise((done) => setTimeout(done, 50 + Math.random() * 300));
while (Date.now() < deadline) {
  for (const [method, path, body] of [
    ["GET", "/"],
    ["GET", "/catalogue"],
    ["GET", "/login"],
    ["POST", "/api/login", { username: user, password }],
    ["GET", "/api/stock/3"],
    ["GET", "/cart"],
  ]) {
    await call(method, path, body);
    await pause();
  }
}
agent.destroy();
