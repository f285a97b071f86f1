// The widget around `rewind`: asks once a second whether there are more steps.

import { rewind } from "./rewind.js";

function render({ model, el }) {
  const view = rewind(el, (message) => model.send(message));
  let known = "";
  let asked = 0;
  el.querySelector(".sdpo-rewind").classList.add("alone");

  function receive(message) {
    if (message.kind === "past") return view.receive(message);
    if (message.kind !== "steps") return;
    asked = 0;
    if (message.mark === known) return;
    known = message.mark;
    view.update(message.steps);
  }

  function tick() { // one question at a time, so none pile up
    if (document.hidden || Date.now() - asked < 5000) return;
    asked = Date.now();
    model.send({ kind: "steps", known });
  }

  model.on("msg:custom", receive);
  receive(model.get("setup"));
  const timer = setInterval(tick, 1000);
  tick();
  return () => {
    clearInterval(timer);
    view.destroy();
    model.off("msg:custom", receive);
  };
}

export default { render };
