// Mixpanel's Node SDK, which sends a request an update: `node.js AT_ONCE`.

const Mixpanel = require("mixpanel");

function company(number) {
  const properties = {
    name: `Company Number ${number} Inc.`,
    plan: number % 3 === 0 ? "enterprise" : "free",
    seats: number,
    founding_year: 1900 + (number % 120),
    mrr: number * 1.25,
    active: number % 2 === 0,
    integrations: ["salesforce", "hubspot"],
    address: { city: "Springfield", zip: 10_000 + number },
  };
  if (number % 4 !== 0) properties.industry = "Technology";
  return { id: `company_${number}`, properties };
}

const companies = Array.from({ length: 2_000 }, (_, number) => company(number));
const times = Number(process.env.UPDATES) / companies.length;
const atOnce = Number(process.argv[2]);
const { hostname, port } = new URL(process.env.ENDPOINT);
const mixpanel = Mixpanel.init("PROJECT_TOKEN", { protocol: "http", host: hostname, port });

function set({ id, properties }) {
  return new Promise((resolve, reject) => {
    const done = (error) => (error ? reject(error) : resolve());
    mixpanel.groups.set("company", id, properties, done);
  });
}

// Sends each `atOnce`th company, one after another.
async function send(first) {
  for (let time = 0; time < times; time++) {
    for (let i = first; i < companies.length; i += atOnce) await set(companies[i]);
  }
}

async function main() {
  const start = performance.now();
  await Promise.all(Array.from({ length: atOnce }, (_, first) => send(first)));
  console.log((performance.now() - start) / 1000);
  process.exit(); // its agent keeps connections open
}

main();
