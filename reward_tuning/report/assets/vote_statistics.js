// Win rates and Bradley-Terry scores of votes, as `reward-tuning votes` computes them
// (reward_tuning/statistics: vote_table, clustered_shares, bradley_terry, beta). A test compares.
(() => {
  "use strict";

  const LEVEL = 0.05;
  const NORMAL = 1.959963984540054; // the normal distribution's 97.5 % quantile
  const TINY = 1e-300;
  const sum = (values) => values.reduce((total, value) => total + value, 0);

  // Lanczos, g = 7: about 15 digits.
  const LANCZOS = [
    0.99999999999980993, 676.5203681218851, -1259.1392167224028, 771.32342877765313,
    -176.61502916214059, 12.507343278686905, -0.13857109526572012, 9.9843695780195716e-6,
    1.5056327351493116e-7,
  ];
  const logGamma = (x) => {
    if (x < 0.5) return Math.log(Math.PI / Math.sin(Math.PI * x)) - logGamma(1 - x);
    const t = x + 6.5;
    const series = LANCZOS.reduce((total, c, i) => (i ? total + c / (x - 1 + i) : c), 0);
    return 0.5 * Math.log(2 * Math.PI) + (x - 0.5) * Math.log(t) - t + Math.log(series);
  };

  const notZero = (value) => (Math.abs(value) > TINY ? value : TINY);
  const betaCdf = (x, a, b) => {
    if (x <= 0 || x >= 1) return x >= 1 ? 1 : 0;
    if (x > (a + 1) / (a + b + 2)) return 1 - betaCdf(1 - x, b, a);
    const front = a * Math.log(x) + b * Math.log1p(-x) + logGamma(a + b) - logGamma(a) - logGamma(b);
    let c = 1;
    let d = 1 / notZero(1 - ((a + b) * x) / (a + 1));
    let fraction = d;
    for (let m = 1; m < 10000; m += 1) {
      const even = (m * (b - m) * x) / ((a + 2 * m - 1) * (a + 2 * m));
      const odd = (-(a + m) * (a + b + m) * x) / ((a + 2 * m) * (a + 2 * m + 1));
      for (const term of [even, odd]) {
        d = 1 / notZero(1 + term * d);
        c = notZero(1 + term / c);
        fraction *= c * d;
      }
      if (Math.abs(c * d - 1) < 1e-16) break;
    }
    return (Math.exp(front) * fraction) / a;
  };
  const betaQuantile = (share, a, b) => {
    let [low, high] = [0, 1];
    for (let i = 0; i < 60; i += 1) {
      const middle = (low + high) / 2;
      if (betaCdf(middle, a, b) < share) low = middle;
      else high = middle;
    }
    return (low + high) / 2;
  };
  const studentQuantile = (p, freedom) => {
    const x = betaQuantile(p, freedom / 2, 0.5);
    return Math.sqrt((freedom * (1 - x)) / x);
  };

  // Votes on one prompt go together: sums of residuals by prompt.
  const byPrompt = (residuals, prompts) => {
    const sums = new Map();
    residuals.forEach((value, i) => {
      const before = sums.get(prompts[i]) || value.map(() => 0);
      sums.set(prompts[i], before.map((one, k) => one + value[k]));
    });
    return [...sums.values()];
  };

  // Independent votes without ties that would scatter as much.
  const effectiveVotes = (values, prompts, share) => {
    const votes = values.length;
    const clusters = new Set(prompts).size;
    if (share === 0 || share === 1) return clusters;
    const ties = values.filter((value) => value === 0.5).length / (votes + 2);
    const scatter = Math.max(1 - ties / 4 / (share * (1 - share)), 1 / (votes + 2));
    if (clusters === votes) return votes / scatter;
    if (clusters < 2) return clusters;
    const sums = byPrompt(values.map((value) => [value - share]), prompts).map(([one]) => one);
    const variance = ((sum(sums.map((one) => one * one)) * clusters) / (clusters - 1)) / votes ** 2;
    const independent = (scatter * share * (1 - share)) / votes;
    return (votes / scatter / Math.max(variance / independent, 1)) * (NORMAL / studentQuantile(LEVEL, clusters - 1)) ** 2;
  };

  // values: 1, 0, or 1/2 for a tie; null without votes.
  const clusteredShare = (values, prompts) => {
    if (!values.length) return null;
    const votes = values.length;
    const share = sum(values) / votes;
    const effective = effectiveVotes(values, prompts, share);
    const count = Math.min(share * effective, effective);
    const low = count <= 0 ? 0 : betaQuantile(LEVEL / 2, count, effective - count + 1);
    const high = count >= effective ? 1 : betaQuantile(1 - LEVEL / 2, count + 1, effective - count);
    const atLeast = count <= 0 ? 1 : betaCdf(0.5, count, effective - count + 1);
    const atMost = count >= effective ? 1 : betaCdf(0.5, effective - count, count + 1);
    return { share, low, high, p: Math.min(1, 2 * Math.min(atLeast, atMost)), votes };
  };

  // Gauss and Jordan, with pivots.
  const inverse = (matrix) => {
    const n = matrix.length;
    const work = matrix.map((row, i) => [...row, ...row.map((_, k) => (i === k ? 1 : 0))]);
    for (let k = 0; k < n; k += 1) {
      let pivot = k;
      for (let i = k + 1; i < n; i += 1) if (Math.abs(work[i][k]) > Math.abs(work[pivot][k])) pivot = i;
      [work[k], work[pivot]] = [work[pivot], work[k]];
      const scale = work[k][k];
      work[k] = work[k].map((value) => value / scale);
      for (let i = 0; i < n; i += 1) {
        if (i === k) continue;
        const factor = work[i][k];
        work[i] = work[i].map((value, c) => value - factor * work[k][c]);
      }
    }
    return work.map((row) => row.slice(n));
  };
  const times = (matrix, vector) => matrix.map((row) => sum(row.map((value, i) => value * vector[i])));
  // sum of weight_i d_i d_i^T
  const information = (design, weight) =>
    design[0].map((_, a) => design[0].map((__, b) => sum(design.map((row, i) => weight[i] * row[a] * row[b]))));
  const expected = (design, scores) => times(design, scores).map((x) => 1 / (1 + Math.exp(-x)));

  const fitted = (design, share) => {
    let scores = design[0].map(() => 0);
    for (let i = 0; i < 200; i += 1) {
      const p = expected(design, scores);
      const weight = p.map((one) => one * (1 - one));
      const turned = inverse(information(design, weight));
      const residual = design.map((row, v) => {
        const leverage = weight[v] * sum(times(turned, row).map((value, k) => value * row[k]));
        return share[v] - p[v] + leverage * (0.5 - p[v]);
      });
      const step = times(turned, scores.map((_, k) => sum(design.map((row, v) => row[k] * residual[v]))));
      const longest = Math.max(...step.map(Math.abs));
      scores = scores.map((one, k) => one + step[k] * Math.min(1, 1 / Math.max(longest, TINY)));
      if (longest < 1e-10) break;
    }
    return scores;
  };

  const variances = (design, share, scores, prompts) => {
    const p = expected(design, scores);
    const weight = p.map((one) => one * (1 - one));
    const turned = inverse(information(design, weight));
    const votes = share.length;
    const ties = share.filter((one) => one > 0 && one < 1).length / (votes + 2);
    const scatter = Math.max(1 - ties / 4 / (sum(weight) / votes), 1 / (votes + 2));
    const independent = turned.map((row, k) => row[k] * scatter);
    const clusters = new Set(prompts).size;
    if (clusters === votes || clusters < 2) return independent;
    const residual = design.map((row, i) => row.map((value) => (share[i] - p[i]) * value));
    const sandwich = (rows) => {
      const outer = rows[0].map((_, a) => rows[0].map((__, b) => sum(rows.map((row) => row[a] * row[b]))));
      // the diagonal of turned * outer * turned
      return turned.map((row) => sum(times(outer, row).map((value, k) => value * row[k])));
    };
    const alone = sandwich(residual);
    const together = sandwich(byPrompt(residual, prompts)).map((one) => (one * clusters) / (clusters - 1));
    return independent.map((one, k) => one * Math.max(alone[k] > 0 ? together[k] / Math.max(alone[k], TINY) : 1, 1));
  };

  // outcomes: {prompt, first, second, share}; the score of each side relative to side 0, or null.
  const bradleyTerry = (outcomes, sides) => {
    const reached = new Set([0]);
    for (let before = 0; reached.size > before; ) {
      before = reached.size;
      for (const { first, second } of outcomes) {
        if (reached.has(first) || reached.has(second)) [first, second].forEach((one) => reached.add(one));
      }
    }
    const found = Array.from({ length: sides }, () => null);
    found[0] = { score: 0, low: 0, high: 0 };
    const order = [...reached].filter((side) => side !== 0).sort((a, b) => a - b);
    if (!order.length) return found;
    const votes = outcomes.filter(({ first }) => reached.has(first));
    const design = votes.map(({ first, second }) => order.map((side) => (side === first) - (side === second)));
    const share = votes.map((vote) => vote.share);
    const prompts = votes.map((vote) => vote.prompt);
    const scores = fitted(design, share);
    const errors = variances(design, share, scores, prompts).map(Math.sqrt);
    const clusters = new Set(prompts).size;
    const quantile = clusters === votes.length ? NORMAL : studentQuantile(LEVEL, Math.max(clusters - 1, 1));
    order.forEach((side, k) => {
      found[side] = { score: scores[k], low: scores[k] - quantile * errors[k], high: scores[k] + quantile * errors[k] };
    });
    return found;
  };

  const holm = (values) => {
    const order = [...values.entries()].sort((a, b) => a[1] - b[1]);
    let largest = 0;
    return new Map(
      order.map(([name, p], rank) => {
        largest = Math.max(largest, Math.min(1, p * (order.length - rank)));
        return [name, largest];
      }),
    );
  };

  // Add one voter's votes up. Each side is compared with the reference: base, else the first by name.
  window.voteTable = (votes) => {
    const real = votes.filter((vote) => !vote.control);
    const names = [...new Set(votes.flatMap((vote) => [vote.left, vote.right]))].sort();
    const reference = names.includes("base") || !names.length ? "base" : names[0];
    const order = [reference, ...names.filter((name) => name !== reference)];
    const chosen = (vote) => (vote.choice === "left" ? vote.left : vote.choice === "right" ? vote.right : vote.choice);
    const shareOf = (vote, side) => (vote.choice === "tie" ? 0.5 : Number(chosen(vote) === side));
    const counted = real.filter((vote) => vote.choice !== "bad");
    const scores = bradleyTerry(
      counted.map((vote) => ({
        prompt: vote.prompt, first: order.indexOf(vote.left), second: order.indexOf(vote.right), share: shareOf(vote, vote.left),
      })),
      order.length,
    );
    const sides = order.slice(1).map((name, i) => {
      const between = real.filter((vote) => [vote.left, vote.right].includes(name) && [vote.left, vote.right].includes(reference));
      const fine = between.filter((vote) => vote.choice !== "bad");
      const count = (what) => between.filter((vote) => chosen(vote) === what).length;
      return {
        name, wins: count(name), losses: count(reference), ties: count("tie"), bad: count("bad"),
        rate: clusteredShare(fine.map((vote) => shareOf(vote, name)), fine.map((vote) => vote.prompt)),
        score: scores[i + 1],
      };
    });
    const corrected = holm(new Map(sides.filter(({ rate }) => rate).map(({ name, rate }) => [name, rate.p])));
    for (const side of sides) {
      side.p = corrected.has(side.name) ? corrected.get(side.name) : null;
      if (!side.rate) side.verdict = "no votes";
      else if (side.rate.low <= 0.5 && side.rate.high >= 0.5) side.verdict = "no preference seen";
      else if (side.p > LEVEL) side.verdict = "may be chance";
      else side.verdict = side.rate.share > 0.5 ? "preferred" : "reference preferred";
    }
    const controls = votes.filter((vote) => vote.control);
    const decided = real.filter((vote) => ["left", "right"].includes(vote.choice));
    const lefts = (list) => clusteredShare(list.map((vote) => Number(vote.choice === "left")), list.map((vote) => vote.prompt));
    return {
      reference, sides, votes: real.length,
      control: { votes: controls.length, decided: controls.filter((vote) => ["left", "right"].includes(vote.choice)).length },
      left: lefts(decided),
    };
  };
})();
