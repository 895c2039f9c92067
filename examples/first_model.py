"""A network of one's own, trained on the digits that come with scikit-learn: python examples/first_model.py."""

import cnnkit
from cnnkit import Adam, Conv2D, Dense, EarlyStopping, Flatten, MaxPool2D, Model, Rescale, Softmax

train, test = cnnkit.load_dataset("digits")

model = Model(
    name="first",
    input_shape=train.image_shape,
    layers=[
        Rescale(scale=1 / 255),
        Conv2D(filters=16, kernel_size=3, padding="same", activation="relu"),
        MaxPool2D(pool_size=2),
        Flatten(),
        Dense(units=10),
        Softmax(),
    ],
    class_names=train.class_names,
)
print(model.summary())

run = cnnkit.fit(
    model,
    train,
    validation=0.1,
    optimizer=Adam(learning_rate=3e-3),
    batch_size=32,
    epochs=10,
    early_stopping=EarlyStopping(patience=3),
)
print(run.message)

metrics = cnnkit.evaluate(model, run.state.parameters, test)
print(metrics)

first = cnnkit.classify(model, run.state.parameters, test.images[:1])[0]
print(f"The first test image is a {first.class_name}, with probability {first.probability:.1%}.")

cnnkit.save("first.safetensors", model, run.state, optimizer=run.optimizer)
