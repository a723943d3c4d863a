// Talk through the installed version of a saver, then print the messages of the live threads.
//
// node talk.mjs URL SAVER [remember]: with the third word nothing is said.

import { Annotation, Command, END, START, StateGraph, interrupt } from "@langchain/langgraph";
import { RedisSaver } from "@langchain/langgraph-checkpoint-redis";
import { ShallowRedisSaver } from "@langchain/langgraph-checkpoint-redis/shallow";

const [url, kind, mode] = process.argv.slice(2);
const OLD = 400 * 86_400_000; // milliseconds ago
const LIVE = ["live", "live:1", "{live}:1", "asked:live"];

let ago = 0;
const RealDate = Date;
globalThis.Date = class extends RealDate {
  constructor(...given) { super(...(given.length ? given : [RealDate.now() - ago])); }
  static now() { return RealDate.now() - ago; }
};

const Dialogue = Annotation.Root({
  said: Annotation({ reducer: (before, more) => before.concat(more), default: () => [] }),
});

// A graph that answers, in a stateful subgraph, and asks a person when it is told to.
const answer = ({ said }) => {
  const last = said[said.length - 1];
  return { said: [last === "ask me" ? `you said ${interrupt("go on?")}` : `answer to ${last}`] };
};
const inner = new StateGraph(Dialogue).addNode("inner", answer).addEdge(START, "inner").compile({ checkpointer: true });
const makeApp = (saver) =>
  new StateGraph(Dialogue).addNode("child", inner).addEdge(START, "child").addEdge("child", END)
    .compile({ checkpointer: saver });
const on = (thread) => ({ configurable: { thread_id: thread } });

// Old threads, live ones with an old beginning, and threads that wait for an answer.
const talk = async (app) => {
  ago = OLD;
  for (const thread of ["old", "old:1", "{old}:1", "live:1", "{live}:1"]) await app.invoke({ said: ["hello"] }, on(thread));
  for (const thread of ["asked:old", "asked:live"]) await app.invoke({ said: ["ask me"] }, on(thread));
  await app.invoke(new Command({ resume: "yes" }), on("asked:live"));
  ago = 0;
  for (const thread of ["live", "live:1", "{live}:1"]) await app.invoke({ said: ["again"] }, on(thread));
  await app.invoke({ said: ["ask me"] }, on("asked:live"));
};

const states = async (app) => {
  const found = {};
  for (const thread of LIVE) {
    const state = await app.getState(on(thread));
    found[thread] = {
      values: state.values,
      next: state.next,
      asks: state.tasks.flatMap((task) => task.interrupts.map((each) => each.value)),
      id: state.config.configurable.checkpoint_id,
    };
  }
  return found;
};

const saver = await (kind === "RedisSaver" ? RedisSaver : ShallowRedisSaver).fromUrl(url);
const app = makeApp(saver);
if (mode !== "remember") await talk(app);
console.log(JSON.stringify(await states(app)));
process.exit(0);
