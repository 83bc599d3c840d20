"use strict";
(() => {
  const holder = document.getElementById("lineage-data");
  if (!holder) return;
  const data = JSON.parse(holder.textContent);
  const STEP = 50;
  const byId = (id) => document.getElementById(id);
  const make = (tag, text, name) => {
    const element = document.createElement(tag);
    if (text !== undefined) element.textContent = text;
    if (name) element.className = name;
    return element;
  };
  const filters = { student: "l-student", arm: "l-arm", seed: "l-seed", round: "l-round", family: "l-family", teacher: "l-teacher" };
  const value = (name) => byId(filters[name]).value;
  const fill = (name, values, any) => {
    const select = byId(filters[name]);
    if (any) select.append(new Option(any, ""));
    for (const one of values) select.append(new Option(one, one));
  };
  const distinct = (values) => [...new Set(values.map(String))];
  for (const name of ["student", "arm", "seed", "round"]) fill(name, distinct(data.paths.map((p) => p[name])));
  fill("family", distinct(data.questions.map((q) => q.family)).filter(Boolean).sort(), "every family");
  fill("teacher", data.teachers, "every teacher");
  let shown = STEP;
  const path = () => data.paths.findIndex((p) => p.student === value("student") && p.arm === value("arm") &&
    String(p.seed) === value("seed") && String(p.round) === value("round"));
  const said = (question) => question.turns.map((t) => t.content || "").join("\n");
  const number = (x) => (x === null || x === undefined ? "" : Math.abs(x) >= 1000 || (x && Math.abs(x) < 0.001) ? x.toExponential(3) : x.toPrecision(4));

  const matching = (which) => {
    const words = byId("l-words").value.toLowerCase(), family = value("family"), teacher = value("teacher");
    const all = byId("l-all").checked;
    return data.questions.filter((q) => {
      const taken = q.chosen[which] || [];
      if (!all && !taken.length) return false;
      if (family && q.family !== family) return false;
      if (teacher && !taken.some((t) => q.answers[t[0]].teacher === teacher)) return false;
      return !words || (said(q) + " " + q.id).toLowerCase().includes(words) ||
        q.answers.some((a) => a.text.toLowerCase().includes(words));
    });
  };

  const why = (question, which) => {
    const p = data.paths[which], box = make("div");
    for (const [place, rank, candidates, weight] of question.chosen[which] || []) {
      const answer = question.answers[place], cost = p.cost === null ? null : data.costs[p.cost];
      let text = `${p.arm} took the answer of ${answer.teacher}: ${p.rule}; `;
      text += cost ? `${rank} of ${candidates} by ${cost.label} (${number(answer.costs[p.cost])}), scored by ${p.student}, ${cost.state}` : `${candidates} could have been taken`;
      if (weight !== 1) text += `; weight ${number(weight)}`;
      if (p.trained) text += `; learned from in train/${p.trained}`;
      box.append(make("p", text, "why"));
    }
    if (!box.childNodes.length) box.append(make("p", `${p.arm} took no answer to this question`, "why soft"));
    return box;
  };

  const takers = (question, place) => {
    const found = new Map();
    for (const [which, taken] of Object.entries(question.chosen)) {
      if (taken.some((t) => t[0] === place)) {
        const p = data.paths[which], key = `${p.student}: ${p.arm}` + (data.rounds > 1 ? `, round ${p.round}` : "");
        found.set(key, (found.get(key) || 0) + 1);
      }
    }
    return [...found].map(([key, n]) => (n > 1 ? `${key} (${n} seeds)` : key)).join("; ");
  };

  const detail = (question, which) => {
    const box = make("div", undefined, "detail"), p = data.paths[which];
    for (const turn of question.turns) {
      box.append(make("span", turn.role, "soft"));
      box.append(make("pre", (turn.content || "") + (turn.tool_calls ? "\n" + JSON.stringify(turn.tool_calls, null, 1) : "")));
    }
    if (question.references.length) box.append(make("p", "reference: " + question.references.join(" or ")));
    box.append(why(question, which));
    const wide = make("div", undefined, "wide"), table = make("table"), head = make("tr");
    const label = p.cost === null ? "cost" : data.costs[p.cost].label;
    for (const name of ["teacher", "verdict", label, "answer", "taken by"]) head.append(make("th", name));
    table.append(head);
    const own = new Set((question.chosen[which] || []).map((t) => t[0]));
    const order = question.answers.map((_, k) => k);
    const cost = (k) => (p.cost === null ? null : question.answers[k].costs[p.cost]);
    order.sort((a, b) => own.has(b) - own.has(a) || (cost(a) ?? Infinity) - (cost(b) ?? Infinity) || a - b);
    for (const k of order) {
      const answer = question.answers[k], row = make("tr", undefined, own.has(k) ? "taken" : "");
      row.append(make("td", answer.teacher));
      row.append(make("td", answer.state + (answer.extracted ? `: ${answer.extracted}` : "") + (answer.why ? ` (${answer.why})` : "")));
      row.append(make("td", number(cost(k)), "n"));
      const text = make("td");
      text.append(make("pre", answer.text + (answer.calls ? "\n" + answer.calls : "")));
      row.append(text, make("td", takers(question, k)));
      table.append(row);
    }
    wide.append(table);
    box.append(wide);
    return box;
  };

  const draw = () => {
    const which = path(), list = byId("l-list");
    list.replaceChildren();
    if (which < 0) {
      byId("l-count").textContent = "nothing was trained for this combination";
      byId("l-more").hidden = true;
      return;
    }
    const found = matching(which);
    byId("l-count").textContent = `${found.length} of ${data.questions.length} questions on this page`;
    for (const question of found.slice(0, shown)) {
      const item = make("li"), button = make("button", undefined, "row");
      const taken = question.chosen[which] || [];
      button.type = "button";
      button.setAttribute("aria-expanded", "false");
      button.append(make("span", said(question).slice(0, 120) || question.id, "what"));
      button.append(make("span", taken.map((t) => question.answers[t[0]].teacher).join(", ") || "none", "who"));
      button.append(make("span", question.family, "soft"));
      button.addEventListener("click", () => {
        const open = button.getAttribute("aria-expanded") === "true";
        button.setAttribute("aria-expanded", String(!open));
        if (open) item.querySelector(".detail").remove();
        else item.append(detail(question, which));
      });
      item.append(button);
      list.append(item);
    }
    byId("l-more").hidden = found.length <= shown;
  };
  const again = () => { shown = STEP; draw(); };
  for (const id of [...Object.values(filters), "l-all"]) byId(id).addEventListener("change", again);
  byId("l-words").addEventListener("input", again);
  byId("l-more").addEventListener("click", () => { shown += STEP; draw(); });
  draw();
})();
