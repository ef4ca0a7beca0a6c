// Films to begin with. Their prompts are in the language of the model that ships with the farm (docs/pocket.md): six
// colours, four shapes, five motions, four backdrops. Their titles are in words.js under `sb.example.NAME`.

export const EXAMPLES = [
  {
    name: "first",
    storyboard: {
      quality: "draft",
      shots: [{ id: "ball", prompt: "a red ball moving right, day", seconds: 3 }],
    },
  },
  {
    name: "day",
    storyboard: {
      seed: 11,
      style: "soft light",
      negative: "blurry",
      characters: { hero: "a red ball", stranger: "a blue box" },
      shots: [
        { id: "morning", prompt: "{hero} moving right, day", seconds: 4 },
        { id: "play", prompt: "{hero} bouncing, day", seconds: 4, transition: "continue" },
        { id: "stranger", prompt: "{stranger} moving left, day", seconds: 3 },
        { id: "dance", prompt: "{hero} circling, sunset", seconds: 4, transition: { dissolve: 0.75 } },
        { id: "wish", prompt: "a white star falling, night", seconds: 3, transition: { dissolve: 1 } },
        { id: "sleep", prompt: "{hero} bouncing, night", seconds: 3 },
      ],
    },
  },
  {
    name: "long",
    storyboard: {
      seed: 21,
      style: "calm",
      characters: { hero: "a yellow star" },
      shots: [
        { id: "arrive", prompt: "{hero} moving right, day", seconds: 8 },
        { id: "bounce", prompt: "{hero} bouncing, day", seconds: 8, transition: "continue" },
        { id: "circle", prompt: "{hero} circling, day", seconds: 8, transition: "continue" },
        { id: "evening", prompt: "{hero} circling, sunset", seconds: 6, transition: "continue" },
      ],
    },
  },
  {
    name: "advert",
    storyboard: {
      seed: 3,
      negative: "low quality",
      identity: 0.3,
      characters: { product: "a purple box", buyer: "a yellow ball" },
      shots: [
        { id: "product", prompt: "{product} circling, plain", seconds: 3 },
        { id: "buyer", prompt: "{buyer} moving right, plain", seconds: 2 },
        { id: "joy", prompt: "{buyer} bouncing, day", seconds: 2.5 },
        { id: "logo", prompt: "{product} falling, sunset", seconds: 2.5 },
      ],
    },
  },
  {
    name: "sky",
    storyboard: {
      seed: 5,
      style: "cinematic",
      negative: "blurry, low quality",
      shots: [
        { id: "night", prompt: "a white ball circling, night", seconds: 4 },
        { id: "dawn", prompt: "a white ball circling, sunset", seconds: 4, transition: { dissolve: 1 } },
        { id: "day", prompt: "a green triangle moving left, day", seconds: 4, transition: { dissolve: 1 } },
        { id: "dusk", prompt: "a green triangle moving left, sunset, camera pan", seconds: 4, transition: { dissolve: 1.5 } },
      ],
    },
  },
];

/** The whole storyboard of an example, under a title in the person's language. */
export const exampleBoard = ({ storyboard }, title) => ({ version: 1, title, model: "pocket", ...storyboard });
