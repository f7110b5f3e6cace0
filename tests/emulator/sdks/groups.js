// The operations on groups with the official Node SDK: groups.js ENDPOINT
"use strict";

const Mixpanel = require("mixpanel");

const { hostname, port } = new URL(process.argv[2]);
const { groups } = Mixpanel.init("TOKEN", { host: hostname, port, protocol: "http", verbose: true });

// One after the other, so that their order is certain.
const call = (method, ...parameters) =>
  new Promise((done, fail) =>
    groups[method](...parameters, (error) => (error ? fail(error) : done())));

(async () => {
  await call("set", "company", "acme",
    { name: "Acmé & Söhne+", plan: "free", seats: 5, ratio: 0.25, is_active: true, old: 1 }, {});
  await call("set_once", "company", "acme", { plan: "enterprise", founded: 1999 }, {});
  await call("union", "company", "acme", { tags: ["a", "b"], ids: [1, 2] }, {});
  await call("union", "company", "acme", { tags: ["b", "c"] }, {});
  await call("remove", "company", "acme", { tags: "a" }, {});
  await call("unset", "company", "acme", ["old"], {});
  await call("set", "company", "globex", { plan: "free" }, {});
  await call("delete_group", "company", "globex", {});
})();
